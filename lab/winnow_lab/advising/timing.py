"""What searches take, as a caller of the gateway waits for them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.progress import Progress

from winnow_client import AsyncClient, DepthPolicy, RetrievalKind, SearchMode, SearchResult
from winnow_lab.advising.measured import Latency
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID
from winnow_rpc.faults import Unavailable

_WARM_UP = 3
"""Searches of each kind before those that count."""
_KINDS = {DENSE: RetrievalKind.DENSE, HYBRID: RetrievalKind.HYBRID}


@dataclass(frozen=True, slots=True)
class Asked:
    """A kind of search whose time is measured; how its hits are ordered takes none."""

    stage: str
    """DENSE, BM25 or HYBRID; empty: every document is read by the cross-encoder."""
    depth: int = 0


@dataclass(slots=True)
class Work:
    """What the models had to do in the searches that were timed."""

    searches: int = 0
    query_tokens: int = 0
    embed_micros: int = 0
    reranked: int = 0
    rerank_tokens: int = 0
    rerank_micros: int = 0

    def add(self, found: SearchResult) -> None:
        """Takes in one search."""
        timing = found.timing
        if timing.embed_token_count:
            self.searches += 1
            self.query_tokens += timing.embed_token_count
            self.embed_micros += timing.embed_micros
        self.reranked += found.reranked_count
        self.rerank_tokens += timing.rerank_token_count
        self.rerank_micros += timing.rerank_micros


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured."""

    latencies: Mapping[Asked, Latency]
    work: Work = field(default_factory=Work)


async def time_searches(
    client: AsyncClient, collection: str, queries: Sequence[JudgedQuery], kinds: Sequence[Asked], progress: Progress
) -> Timed:
    """Searches every query in every way, one after another; ways take turns in an order drawn anew for each query, so
    that a machine that drifts hits all alike."""
    chance = random.Random(0)
    task = progress.add_task("time searches", total=(len(queries) + _WARM_UP) * len(kinds))
    seconds: dict[Asked, list[float]] = {kind: [] for kind in kinds}
    work = Work()
    for at in range(-_WARM_UP, len(queries)):
        for kind in chance.sample(list(kinds), len(kinds)):
            began = time.perf_counter()
            found = await _search(client, collection, queries[at % len(queries)].text, kind)
            took = time.perf_counter() - began
            if at >= 0:
                seconds[kind].append(took)
                work.add(found)
            progress.advance(task)
    return Timed({kind: latency(values) for kind, values in seconds.items()}, work)


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles by the nearest rank, so that each is a value that was measured."""
    p50, p95 = np.percentile(seconds, [50, 95], method="inverted_cdf")
    return Latency(p50=float(p50), p95=float(p95))


async def _search(client: AsyncClient, collection: str, query: str, kind: Asked) -> SearchResult:
    if kind.stage == BM25:
        return await client.search(collection, query, mode=SearchMode.LEXICAL)
    if not kind.stage:
        found = await client.search(collection, query, mode=SearchMode.EXHAUSTIVE, require_rerank=True)
    elif not kind.depth:
        return await client.search(collection, query, mode=SearchMode.RETRIEVE, retrieval=_KINDS[kind.stage])
    else:
        found = await client.search(
            collection,
            query,
            mode=SearchMode.TWO_STAGE,
            retrieval=_KINDS[kind.stage],
            depth=kind.depth,
            depth_policy=DepthPolicy.FLOOR,
            require_rerank=True,
        )
    if not found.reranked_count:
        raise Unavailable("a search that was to be timed reranked nothing", reason="DEGRADED")
    return found
