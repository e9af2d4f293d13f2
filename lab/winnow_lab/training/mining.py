"""Hard negatives: for each query the passages that vectors or words put near it, and that do not answer it.

What one retriever finds mends the other one's mistakes, so both are asked, and a reranker learns to order what hybrid
retrieval will hand it. Pure but for the time that it takes: vectors and texts come from the caller.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow_gateway.collections import LexicalConfig
from winnow_lab.lexical import Bm25Index

Matrix = NDArray[np.float32]
Ranks = NDArray[np.int64]

_BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSettings:
    """Which neighbours of a query become its negatives."""

    count: int = 5
    """Negatives of a query."""
    depth: int = 100
    """Neighbours looked at in each order: as many as are reranked later."""
    near: int = 20
    """Half of the negatives are drawn from the first so many, which are the ones that an answer competes with."""
    margin: float = 0.02
    """A passage is left out whose cosine to the query is higher than the answer's by more than this and whose BM25 rank
    is ahead of the answer's too: two retrievers that agree against the judgement have often found another answer."""


def dense_neighbours(queries: Matrix, passages: Matrix, *, depth: int) -> tuple[Ranks, Matrix]:
    """Positions and cosines [queries, depth] of the nearest passages, best first; both matrices are of unit rows."""
    depth = min(depth, len(passages))
    ranks = np.empty((len(queries), depth), dtype=np.int64)
    scores = np.empty((len(queries), depth), dtype=np.float32)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ passages.T
        best = np.argpartition(-block, depth - 1, axis=1)[:, :depth]
        found = np.take_along_axis(block, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        ranks[start : start + _BLOCK] = np.take_along_axis(best, order, axis=1)
        scores[start : start + _BLOCK] = np.take_along_axis(found, order, axis=1)
    return ranks, scores


def lexical_neighbours(queries: Sequence[str], passages: Sequence[str], *, depth: int) -> Ranks:
    """Positions [queries, depth] of the best passages by BM25 as a collection has it, best first; ties by position."""
    depth = min(depth, len(passages))
    usual = LexicalConfig()
    index = Bm25Index(passages, language=usual.language, average_words=usual.average_words)
    ranks = np.empty((len(queries), depth), dtype=np.int64)
    for at, query in enumerate(queries):
        scores = index.scores(query)
        best = np.argpartition(-scores, depth - 1)[:depth]
        ranks[at] = best[np.lexsort((best, -scores[best]))]
    return ranks


def choose_negatives(
    answers: Collection[int],
    *,
    dense: Sequence[int],
    cosines: Sequence[float],
    answer_cosine: float,
    lexical: Sequence[int],
    settings: MiningSettings,
    draw: random.Random,
) -> list[int]:
    """Positions of a query's negatives, none of them an answer, without repetition; fewer if there are no more.

    `dense` and `lexical` are positions of neighbours, best first; `cosines` are those of `dense`.
    """
    dense_cosine = dict(zip(dense, cosines, strict=True))
    answer_rank = min((rank for rank, at in enumerate(lexical) if at in answers), default=len(lexical))
    suspects = {
        at
        for rank, at in enumerate(lexical)
        if rank < answer_rank and dense_cosine.get(at, -1.0) > answer_cosine + settings.margin
    }
    unfit = set(answers) | suspects
    near = _union(dense[: settings.near], lexical[: settings.near], without=unfit)
    far = _union(dense[settings.near :], lexical[settings.near :], without=unfit | set(near))
    hard = draw.sample(near, min(len(near), settings.count - settings.count // 2))
    easy = draw.sample(far, min(len(far), settings.count - len(hard)))
    left = [at for at in near if at not in hard]
    return hard + easy + draw.sample(left, min(len(left), settings.count - len(hard) - len(easy)))


def _union(one: Sequence[int], other: Sequence[int], *, without: Collection[int]) -> list[int]:
    return [int(at) for at in dict.fromkeys([*one, *other]) if at not in without]
