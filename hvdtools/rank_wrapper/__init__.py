"""What may stand between a launcher and the program in each rank; it imports little."""
