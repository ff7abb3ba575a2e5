"""Shards of datasets and arrays, one for each rank."""
