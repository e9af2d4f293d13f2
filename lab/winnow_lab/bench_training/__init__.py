"""Measures training against the plain script that sentence-transformers' documentation shows."""
