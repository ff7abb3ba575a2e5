"""Predicts how a measured training scales on more ranks, or on another network."""
