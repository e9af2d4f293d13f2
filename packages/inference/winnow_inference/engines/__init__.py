"""What computes: token sequences in, one row of numbers a sequence out. `base` is the interface; the others are it."""
