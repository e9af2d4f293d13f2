"""`winnow evaluate`: what retrieval and reranking are worth on judged sets.

`sets` reads what is judged, `in_process` and `through_gateway` find answers, `systems` makes of each answer the order
that a system would give, `judging` says what those are worth, `tables` and `keeping` show and keep it. `similarity`
is for sets of scored pairs.
"""
