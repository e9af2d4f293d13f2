"""Reads what models are trained and judged on, and checks it while reading: what is wrong is named by file and line."""
