"""Shared by all packages: topology, errors, agreement between ranks, sharding, preemption."""
