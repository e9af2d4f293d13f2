"""Measurements that tests make up."""

from __future__ import annotations

import numpy as np

from winnow_lab.advising.measured import Kind, Latency, Option
from winnow_relevance import estimate

QUERIES = 60


def an_option(
    name: str,
    *,
    quality: float,
    millis: float,
    kind: Kind = Kind.TWO_STAGE,
    stage: str = "hybrid",
    depth: int = 0,
    mixed: bool = False,
    noise: float = 0.05,
    queries: int = QUERIES,
    found: float = 0.95,
) -> Option:
    """One whose mean quality is `quality` exactly; noise is its own, so that differences have a spread."""
    difficulty = np.random.default_rng(0).uniform(-0.3, 0.3, size=queries)
    own = np.random.default_rng(abs(hash_of(name))).normal(0, noise, size=queries)
    values = difficulty + own
    values = values - values.mean() + quality
    return Option(
        name=name,
        kind=kind,
        stage=stage,
        depth=depth,
        mixed=mixed,
        values=values,
        quality=estimate(values, rounds=200),
        latency=Latency(p50=millis / 1000, p95=1.5 * millis / 1000),
        ceiling=0.97,
        found=found,
    )


def hash_of(name: str) -> int:
    """The same on every run."""
    return sum(ord(char) * (at + 1) for at, char in enumerate(name))


def retrieval(*, dense: float = 0.60, hybrid: float = 0.65, queries: int = QUERIES) -> list[Option]:
    return [
        an_option("dense", quality=dense, millis=8, kind=Kind.RETRIEVE, stage="dense", queries=queries),
        an_option("BM25", quality=0.58, millis=5, kind=Kind.LEXICAL, stage="BM25", queries=queries),
        an_option("hybrid", quality=hybrid, millis=10, kind=Kind.RETRIEVE, queries=queries),
    ]


def reranked(qualities: dict[int, float], *, queries: int = QUERIES) -> list[Option]:
    """Over hybrid, by depth; a candidate takes 4 ms."""
    return [
        an_option(f"hybrid, rerank {depth}", quality=quality, millis=10 + 4 * depth, depth=depth, queries=queries)
        for depth, quality in qualities.items()
    ]
