"""Averages gradients over ranks: hooks, buckets, all-reduces, consistency checks."""
