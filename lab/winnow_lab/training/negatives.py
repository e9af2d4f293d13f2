"""Finds hard negatives for the queries of a judged set, with a bi-encoder and BM25."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from winnow_lab.data.examples import JudgedSet
from winnow_lab.training.mining import Matrix, MiningSettings, choose_negatives, dense_neighbours, lexical_neighbours

Embed = Callable[[Sequence[str], bool], Matrix]
"""Unit vectors [texts, dimension] of texts, which are queries (True) or documents (False)."""


def find_negatives(judged: JudgedSet, embed: Embed, settings: MiningSettings, *, seed: int) -> dict[str, list[str]]:
    """Id of each query → the texts of its negatives: `settings.count` of them, or as many as there are documents for.

    Where the neighbours do not give enough, others are drawn from the whole corpus.
    """
    ids = list(judged.documents)
    texts = list(judged.documents.values())
    position = {id_: at for at, id_ in enumerate(ids)}
    queries = [query.text for query in judged.queries]
    passages, asked = embed(texts, False), embed(queries, True)
    dense, cosines = dense_neighbours(asked, passages, depth=settings.depth)
    lexical = lexical_neighbours(queries, texts, depth=settings.depth)
    draw = random.Random(seed)
    found = {}
    for at, query in enumerate(judged.queries):
        # What was judged not to answer is left to the data, which has it as a negative already.
        judged_at = {position[id_] for id_ in query.judgements}
        answers = [position[id_] for id_, grade in query.judgements.items() if grade > 0]
        chosen = choose_negatives(
            judged_at,
            dense=dense[at].tolist(),
            cosines=cosines[at].tolist(),
            answer_cosine=float(np.max(passages[answers] @ asked[at])),
            lexical=lexical[at].tolist(),
            settings=settings,
            draw=draw,
        )
        chosen += _others(len(texts), judged_at | set(chosen), settings.count - len(chosen), draw)
        found[query.id] = [texts[each] for each in chosen]
    return found


def _others(documents: int, without: set[int], count: int, draw: random.Random) -> list[int]:
    """So many positions by chance, none of them in `without`; fewer if there are no more."""
    count = min(count, documents - len(without))
    chosen: set[int] = set()
    while len(chosen) < count:
        at = draw.randrange(documents)
        if at not in without:
            chosen.add(at)
    return sorted(chosen)
