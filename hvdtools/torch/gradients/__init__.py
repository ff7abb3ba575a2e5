"""Gradients on their way: hooks, buckets, all-reduces, and what watches over them."""
