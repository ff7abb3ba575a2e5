"""Each rank's part of a dataset."""
