"""From sources to groups: a query, one passage that answers it, and hard negatives, ready for a listwise loss."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from winnow_lab.recipe.sources import Source
from winnow_lab.training.mining import Matrix, MiningSettings, Ranks, choose_negatives


@dataclass(frozen=True, slots=True)
class Group:
    """A query and its passages, the first of which answers it."""

    source: str
    query: str
    documents: list[str]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What both retrievers put near each query of a source."""

    dense: Ranks
    cosines: Matrix
    lexical: Ranks
    answer_cosines: Sequence[float]
    """The cosine of each query to its first answer."""


def make_groups(
    source: Source, near: Neighbours, settings: MiningSettings, *, untitled: float, draw: random.Random
) -> Iterator[Group]:
    """One group a query; in a share of `untitled` of them the passages' titles are left out, so that a reranker does
    not learn to lean on them."""
    for at, query in enumerate(source.queries):
        negatives = choose_negatives(
            source.answers[at],
            dense=near.dense[at].tolist(),
            cosines=near.cosines[at].tolist(),
            answer_cosine=near.answer_cosines[at],
            lexical=near.lexical[at].tolist(),
            settings=settings,
            draw=draw,
        )
        answer = source.shown.get(at) or source.passages[draw.choice(source.answers[at])]
        documents = [answer, *(source.passages[each] for each in negatives)]
        if draw.random() < untitled:
            documents = [text.split("\n", 1)[-1] for text in documents]
        yield Group(source.name, query, documents)
