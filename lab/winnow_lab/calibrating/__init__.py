"""Learns, on judgements, how a cross-encoder's scores are best mixed with the first stage's, and what they mean."""
