"""The texts that are measured with: passages and queries of known length, always the same ones. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

PASSAGE_TOKENS = (100, 200)
"""Fewest and most tokens of a passage, special tokens included."""
QUERY_TOKENS = (8, 20)
"""Fewest and most tokens of a query, special tokens included."""

_SENTENCE = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Passages and queries, and what they are to the model."""

    source: str
    """Where they came from."""
    passages: list[str]
    """In the order in which they are sent."""
    passage_tokens: list[int]
    """Tokens of each passage, special tokens included."""
    queries: list[str]
    """In the order in which they are sent."""
    query_tokens: list[int]
    """Tokens of each query, special tokens included."""
    candidates: list[list[int]]
    """For each query the passages to rerank, by position."""


def within(counts: Sequence[int], bounds: tuple[int, int]) -> list[int]:
    """Positions of the counts that lie between the bounds, both included."""
    low, high = bounds
    return [position for position, count in enumerate(counts) if low <= count <= high]


def spread(positions: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, evenly over all, in their order."""
    if len(positions) <= count:
        return list(positions)
    return [positions[number * len(positions) // count] for number in range(count)]


def first_sentence(text: str) -> str:
    """The first sentence of the last paragraphs of a documented thing, as a person might ask for it."""
    # A signature stands in a paragraph of its own, before the description.
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    described = paragraphs[1] if len(paragraphs) > 1 else text
    return " ".join(_SENTENCE.split(described.strip())[0].split())


def overlapping(queries: Sequence[Sequence[int]], passages: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """For each query the `count` passages that share most with it: the summed rarity of the tokens in both.

    A stand-in for retrieval that needs no model: what a reranker is given resembles the query, and scores of passages
    that have nothing to do with it would all be alike. Rarity is the inverse document frequency, log(1 + n / holding
    it). Ties go to the earlier passage.
    """
    sets = [frozenset(passage) for passage in passages]
    holding = Counter(token for passage in sets for token in passage)
    rarity = {token: math.log(1 + len(sets) / number) for token, number in holding.items()}
    found = []
    for query in queries:
        wanted = set(query)
        scores = [sum(rarity[token] for token in wanted & passage) for passage in sets]
        found.append(sorted(range(len(sets)), key=lambda at: (-scores[at], at))[:count])
    return found
