"""Result files: one JSON line for each engine of a case."""
