"""Builds Horovod for the frameworks of this Python environment, and proves the result."""
