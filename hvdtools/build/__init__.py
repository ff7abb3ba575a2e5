"""Builds Horovod for the frameworks of this Python environment, and tests the result."""
