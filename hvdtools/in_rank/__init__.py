"""What may stand between a starter and the program in each rank; it imports little."""
