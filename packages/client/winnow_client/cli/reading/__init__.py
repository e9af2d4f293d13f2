"""Reads documents from files: one module a format. What cannot be read is refused with its place, the rest goes on."""
