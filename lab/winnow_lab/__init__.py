"""Measures Winnow: benchmarks of its speed, and the quality of its rankings."""
