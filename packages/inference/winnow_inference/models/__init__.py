"""Finds a model, checks it, loads it, names it, and keeps what was made of it."""
