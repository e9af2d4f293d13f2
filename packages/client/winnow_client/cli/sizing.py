"""What a deployment needs: memory and disk of the index, replicas of the services. Pure arithmetic, no I/O.

Sizes are in bytes, times in seconds. The terms of the index's size are those of its files, fitted to collections that
the real index had written and checked by `tests/contract/index/test_sizes.py`; docs/operations.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

FLOAT_BYTES = 4
_PAIR_MARKS = 3
"""Tokens that a cross-encoder puts around and between two texts."""
_ANSWER_MARGIN = 0.008
"""The gateway stops reranking so long before the time is up: its `answer_margin_millis`."""
_WAL_BYTES = 96 * 2**20
"""Three segments of 32 MiB, the most that the engine's log was seen to hold."""
_PROCESS_BYTES = 175 * 10**6
_BUILDER_BYTES, _BUILDER_PER_DOCUMENT = 170 * 10**6, 1000
_BUILDER_MAPPED_BYTES = 180 * 10**6
_PAYLOAD_FIXED, _PAYLOAD_PER_TOKEN = 300, 2.7
"""Id, title, hash and time of a document; and text, compressed by the engine, at 4.5 bytes a token of English."""
_POSTING_BLOCK, _POSTING_STORED, _POSTING_INDEXED = 64, 8, 6
_ID_BYTES, _ID_MEMORY = 29, 150


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be served."""

    documents: int
    """Documents, each one passage."""
    tokens: float = 128.0
    """Tokens of a document, on average."""
    dimension: int = 384
    """Components of a vector."""
    model_tokens: int = 256
    """Tokens of a text that the models read at most."""
    lexical: bool = True
    """Whether there is BM25 beside the vectors."""
    links: int = 16
    """`m` of HNSW: links of a point in each layer, twice as many in the lowest."""
    copies: int = 1
    """Copies of the index: Qdrant's replication factor; the embedded index has one."""
    queries_per_second: float = 1.0
    """Searches a second at the busiest time."""
    query_tokens: float = 12.0
    """Tokens of a query, on average."""
    depth: int = 100
    """Candidates that a search reranks; 0: none."""
    budget: float | None = None
    """Seconds within which a search has to answer; None: as long as it takes."""
    daily_documents: float = 0.0
    """Documents that are new or changed each day, once everything is in."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What work takes on one replica. Times are of the replica as a whole, all its cores or its GPU together."""

    source: str
    """Where the figures are from, for a person."""
    embed_seconds_per_token: float
    """Of bulk embedding."""
    embed_query_seconds: float
    """Of embedding one query: mostly not its tokens."""
    rerank_seconds_per_token: float
    """Of scoring pairs, per token of the pair."""
    gateway_seconds_per_search: float
    """Of the gateway's one core, for a search without reranking."""
    gateway_seconds_per_candidate: float
    """Of the same, for each candidate that is reranked."""
    index_seconds_per_search: float
    """Of the index's one core, for a search without reranking."""
    index_seconds_per_candidate: float
    """Of the same, for each candidate that is fetched to be reranked."""
    ingest_embedding_share: float
    """Share of an ingest's time that is embedding."""


@dataclass(frozen=True, kw_only=True)
class IndexSize:
    """What one copy of the index takes."""

    disk: int
    """On disk at rest, its log included."""
    disk_while_building: int
    """On disk while a graph is built: a second copy of the collection."""
    snapshot: int
    """Each snapshot, on disk."""
    memory: int
    """In memory while it serves, with every file cached that searches touch."""
    memory_while_building: int
    """The same, and what the process that builds a graph holds for itself: the least to give."""
    memory_while_building_cached: int
    """The same with every file cached that is built from and built. What is missing of it is read from disk instead."""
    parts: dict[str, int]
    """On disk, by what it is."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Replicas of one service."""

    service: str
    """Its name."""
    seconds_per_search: float
    """Of a replica, for one search."""
    load: float
    """Replicas that would be busy all the time."""
    needed: int
    """Replicas that keep to the utilisation."""
    replicas: int
    """The same and the spare ones."""
    utilisation: float
    """Of each, with the spare ones at work."""
    mean_wait: float
    """Seconds that a search waits for its turn, on average."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a workload needs."""

    workload: Workload
    costs: Costs
    utilisation: float
    index: IndexSize
    depth: int
    """Candidates that are reranked: what was asked for, or what the budget allows of it."""
    stages: tuple[Stage, ...]
    first_ingest_seconds: float
    """For all documents, with the embedder's replicas doing nothing else."""
    warnings: tuple[str, ...]


def distinct_terms(tokens: float) -> float:
    """Terms of a document that BM25 keeps: they grow slower than its length, by Heaps' law."""
    return 1.1 * math.pow(tokens, 0.7)


def link_bytes(documents: int, links: int) -> float:
    """Of a point's links in the graph: 2m in the lowest layer, each as many bits as a point's number needs."""
    return 2 * links * math.ceil(math.log2(max(2, documents))) / 8


def index_size(workload: Workload) -> IndexSize:
    """What one copy of the index takes. Grows with every one of the workload's numbers."""
    n, vector = workload.documents, FLOAT_BYTES * workload.dimension
    links = link_bytes(n, workload.links)
    payload = _PAYLOAD_FIXED + _PAYLOAD_PER_TOKEN * workload.tokens
    terms = distinct_terms(workload.tokens) if workload.lexical else 0.0
    postings = _POSTING_BLOCK + (_POSTING_STORED + _POSTING_INDEXED) * terms if workload.lexical else 0.0
    parts = {
        "vectors": round(n * vector),
        "graph": round(n * links),
        "documents": round(n * payload),
        "bm25": round(n * postings),
        "ids": round(n * _ID_BYTES),
    }
    data = sum(parts.values())
    memory = _PROCESS_BYTES + n * (vector + links + payload + _POSTING_INDEXED * terms + _ID_MEMORY)
    # It maps the old vectors and the new, and sorts the postings.
    mapped = 3 * vector + 2 * payload + 300 + (2600 + 30 * terms if workload.lexical else 0)
    return IndexSize(
        disk=data + _WAL_BYTES,
        disk_while_building=2 * (data + _WAL_BYTES),
        snapshot=data + _WAL_BYTES,
        memory=round(memory),
        memory_while_building=round(memory + _BUILDER_BYTES + n * _BUILDER_PER_DOCUMENT),
        memory_while_building_cached=round(memory + _BUILDER_MAPPED_BYTES + n * mapped),
        parts={**parts, "log": _WAL_BYTES},
    )


def mean_wait(utilisation: float, seconds: float) -> float:
    """Seconds that work waits where each piece takes `seconds`, arrivals are random, and one server does it in turn.

    The Pollaczek-Khinchine formula for service times that are alike (M/D/1).
    """
    return seconds * utilisation / (2 * (1 - utilisation)) if utilisation < 1 else math.inf


def plan(workload: Workload, costs: Costs, *, utilisation: float = 0.6, spare: int = 1) -> Plan:
    """What a workload needs, at most `utilisation` of each replica used; `spare` replicas may be away."""
    pair = min(workload.tokens, workload.model_tokens) + workload.query_tokens + _PAIR_MARKS
    pair_seconds = pair * costs.rerank_seconds_per_token
    depth = _depth(workload, costs, pair_seconds, utilisation)
    ingest = min(workload.tokens, workload.model_tokens) * costs.embed_seconds_per_token
    daily = workload.daily_documents * ingest / 86_400
    gateway = costs.gateway_seconds_per_search + depth * costs.gateway_seconds_per_candidate
    index = costs.index_seconds_per_search + depth * costs.index_seconds_per_candidate
    rate = workload.queries_per_second
    stages = (
        _stage("gateway", rate, gateway, utilisation, spare),
        _stage("embedder", rate, costs.embed_query_seconds, utilisation, spare, beside=daily),
        _stage("reranker", rate, depth * pair_seconds, utilisation, spare),
        _stage("index", rate, index, utilisation, 0, least=workload.copies),
    )
    made = Plan(
        workload=workload,
        costs=costs,
        utilisation=utilisation,
        index=index_size(workload),
        depth=depth,
        stages=stages,
        first_ingest_seconds=workload.documents * ingest / costs.ingest_embedding_share / stages[1].replicas,
        warnings=(),
    )
    return replace(made, warnings=tuple(_warnings(made)))


def _depth(workload: Workload, costs: Costs, pair_seconds: float, utilisation: float) -> int:
    if workload.budget is None or workload.depth == 0:
        return workload.depth
    # Everything takes its time and, on average, its wait.
    stretch = 1 + mean_wait(utilisation, 1.0)
    fixed = costs.embed_query_seconds + costs.index_seconds_per_search + costs.gateway_seconds_per_search
    # The gateway works while the reranker does.
    each = pair_seconds + costs.index_seconds_per_candidate
    left = workload.budget - _ANSWER_MARGIN - stretch * fixed
    return min(workload.depth, max(0, math.floor(left / (stretch * each))))


def _stage(
    service: str, rate: float, seconds: float, utilisation: float, spare: int, *, beside: float = 0.0, least: int = 1
) -> Stage:
    load = rate * seconds + beside
    if seconds == 0:
        return Stage(service=service, seconds_per_search=0, load=0, needed=0, replicas=0, utilisation=0, mean_wait=0.0)
    needed = max(least, math.ceil(load / utilisation - 1e-9))
    used = load / (needed + spare)
    return Stage(
        service=service,
        seconds_per_search=seconds,
        load=load,
        needed=needed,
        replicas=needed + spare,
        utilisation=used,
        mean_wait=mean_wait(used, seconds),
    )


def _warnings(made: Plan) -> Sequence[str]:
    workload, found = made.workload, []
    by_name = {stage.service: stage for stage in made.stages}
    if made.depth < workload.depth:
        found.append(
            f"the budget allows {made.depth} of {workload.depth} candidates to be reranked: more cores or a GPU for "
            f"each reranker would allow more, more rerankers would not"
        )
    if workload.tokens > workload.model_tokens:
        found.append(
            f"of {workload.tokens:g} tokens the models read {workload.model_tokens}: vectors know the beginning of a "
            f"document only"
        )
    if by_name["index"].needed > workload.copies:
        found.append(
            f"{workload.queries_per_second:g} searches a second need {by_name['index'].needed} cores of the index: a "
            f"Qdrant server uses them, the embedded index is one process and uses one"
        )
    elif workload.copies > 1:
        found.append("several copies need a Qdrant cluster: the embedded index is one process")
    return found
