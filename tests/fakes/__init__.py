"""Hand-written stand-ins that obey the same suites as the real things."""
