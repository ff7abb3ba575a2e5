"""Each rank's part of a DataLoader."""
