"""Batch norm over the batches of all ranks."""
