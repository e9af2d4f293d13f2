"""The recipe of the cross-encoder that ships with Winnow: which texts, which negatives, how it is trained."""
