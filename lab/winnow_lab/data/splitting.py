"""Divides data, so that no query is on both sides. Pure."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from winnow_lab.data.examples import Data, Groups, JudgedSet, ScoredPairs, Triplets
from winnow_rpc.faults import InvalidArgument

ItemT = TypeVar("ItemT")


def hold_out(data: Data, share: float, *, seed: int = 0) -> tuple[Data, Data]:
    """What is left to train on, and about a share of the queries (0 to 1) held out to evaluate on.

    Which those are depends on their text and the seed alone. Raises InvalidArgument where one side would be empty.
    """

    def held(text: str) -> bool:
        digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    match data:
        case ScoredPairs():
            pairs = _divide(data.pairs, lambda pair: held(pair.sentence1), data.source)
            return replace(data, pairs=pairs[0]), replace(data, pairs=pairs[1])
        case Triplets():
            triplets = _divide(data.triplets, lambda triplet: held(triplet.anchor), data.source)
            return replace(data, triplets=triplets[0]), replace(data, triplets=triplets[1])
        case Groups():
            groups = _divide(data.groups, lambda group: held(group.query), data.source)
            return replace(data, groups=groups[0]), replace(data, groups=groups[1])
        case JudgedSet():
            queries = _divide(data.queries, lambda query: held(query.text), data.source)
            return replace(data, queries=queries[0]), replace(data, queries=queries[1])


def sample(data: Data, count: int, *, seed: int = 0) -> Data:
    """At most so many of the examples, the same for the same seed, in their order; of a judged set, of its queries."""
    match data:
        case ScoredPairs():
            return replace(data, pairs=_drawn(data.pairs, count, seed))
        case Triplets():
            return replace(data, triplets=_drawn(data.triplets, count, seed))
        case Groups():
            return replace(data, groups=_drawn(data.groups, count, seed))
        case JudgedSet():
            return replace(data, queries=_drawn(data.queries, count, seed))


def sample_documents(judged: JudgedSet, count: int, *, seed: int = 0) -> JudgedSet:
    """A judged set with about so many of its documents: all that its queries were judged with, and others by chance."""
    if count >= len(judged.documents):
        return judged
    needed = {id_ for query in judged.queries for id_ in query.judgements}
    others = [id_ for id_ in judged.documents if id_ not in needed]
    chosen = needed | set(_drawn(others, max(0, count - len(needed)), seed))
    return replace(judged, documents={id_: text for id_, text in judged.documents.items() if id_ in chosen})


def _divide(
    items: Sequence[ItemT], held: Callable[[ItemT], bool], source: str
) -> tuple[Sequence[ItemT], Sequence[ItemT]]:
    out = [item for item in items if held(item)]
    left = [item for item in items if not held(item)]
    if not out or not left:
        raise InvalidArgument(
            f"{source}: {len(items)} examples are too few to hold some out for evaluation: name a file or split with "
            f"--dev, or --hold-out 0 to train without evaluation"
        )
    return left, out


def _drawn(items: Sequence[ItemT], count: int, seed: int) -> Sequence[ItemT]:
    if count >= len(items):
        return items
    chosen = sorted(random.Random(seed).sample(range(len(items)), count))
    return [items[at] for at in chosen]
