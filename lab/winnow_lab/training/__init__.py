"""Trains bi-encoders and cross-encoders with sentence-transformers' trainers, losses and evaluators."""
