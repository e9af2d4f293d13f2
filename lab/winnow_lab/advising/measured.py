"""Ways to search, and what was measured of each. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from winnow_relevance import Estimate


class Kind(Enum):
    """Which stages answer."""

    RETRIEVE = "retrieve"
    LEXICAL = "lexical"
    TWO_STAGE = "two-stage"
    EXHAUSTIVE = "exhaustive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What a caller waits, in seconds, on an otherwise idle machine."""

    p50: float
    p95: float

    def scaled(self, factor: float) -> Latency:
        """All of it longer by a factor."""
        return Latency(p50=self.p50 * factor, p95=self.p95 * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A way to search, measured."""

    name: str
    kind: Kind
    stage: str = ""
    """The first stage: dense, BM25 or hybrid; empty for EXHAUSTIVE."""
    depth: int = 0
    """Candidates that are reranked; of EXHAUSTIVE every document."""
    mixed: bool = False
    """Whether ranks of both stages are mixed, rather than ordered by the reranker alone."""
    values: NDArray[np.float64]
    """The headline measure of each query: [queries], the same queries in the same order for every option."""
    quality: Estimate
    latency: Latency
    ceiling: float = 1.0
    """The headline measure of the best order of its candidates."""
    found: float = 1.0
    """Share of the relevant documents among its candidates."""

    @property
    def reranks(self) -> bool:
        """Whether the cross-encoder has a part in it."""
        return self.kind in (Kind.TWO_STAGE, Kind.EXHAUSTIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is asked, and of what."""

    measure: str = "nDCG@10"
    """Name of the headline measure."""
    budget: float
    """Seconds within which a search has to answer."""
    measured_size: int
    """Documents that were searched for the measurement."""
    corpus_size: int
    """Documents that will be searched."""
    training_queries: int = 0
    """Judged queries in the set's split `train`."""


def pareto(options: Sequence[Option]) -> list[Option]:
    """Those that no other beats in quality without being slower, by rising latency."""
    front: list[Option] = []
    for option in sorted(options, key=lambda each: (each.latency.p50, -each.quality.mean)):
        if not front or option.quality.mean > front[-1].quality.mean:
            front.append(option)
    return front
