"""What all packages share: topology, errors, agreement between ranks, sharding."""
