"""Metrics of the gateway: searches by mode and stage, in what they were less than asked for, the backends' health, and
how far re-embedding is.

No label names a collection: callers make those, without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from winnow_gateway.breaking import BreakerState, CircuitBreaker
from winnow_gateway.ingesting import Acknowledgement
from winnow_gateway.outcomes import DegradationKind, SearchOutcome
from winnow_gateway.reembedding import Reembedder, ReembedOutcome
from winnow_gateway.searching import Searcher
from winnow_rpc.metrics import SECONDS, on_loop

_DEPTHS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
_UNRANKED = {DegradationKind.RERANK_SKIPPED, DegradationKind.RERANK_PARTIAL}


class SearchMetrics:
    """Counts searches as they are answered. One that ends in a fault is counted as a call alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "winnow_search_seconds",
            "Time of searches that were answered, by the mode that ran.",
            ["mode"],
            registry=registry,
            buckets=SECONDS,
        )
        self._stages = Histogram(
            "winnow_search_stage_seconds",
            "Time of each stage of a search, in those that had it; gateway is what the gateway took itself.",
            ["stage"],
            registry=registry,
            buckets=SECONDS,
        )
        self._degradations = Counter(
            "winnow_search_degradations",
            "In what answers were less than was asked for, and why.",
            ["kind", "reason"],
            registry=registry,
        )
        self._depth = Histogram(
            "winnow_search_rerank_depth",
            "Candidates reranked, in searches that were to rerank; 0 where that was skipped.",
            registry=registry,
            buckets=_DEPTHS,
        )

    def answered(self, outcome: SearchOutcome) -> None:
        """Counts an answer."""
        timing = outcome.timing
        self._seconds.labels(outcome.mode.value).observe(timing.total_micros / 1e6)
        stages = {"embed": timing.embed_micros, "retrieve": timing.retrieve_micros, "rerank": timing.rerank_micros}
        for stage, micros in stages.items():
            if micros:
                self._stages.labels(stage).observe(micros / 1e6)
        self._stages.labels("gateway").observe(timing.gateway_micros / 1e6)
        for degradation in outcome.degradations:
            self._degradations.labels(degradation.kind.value, degradation.reason).inc()
        if outcome.reranked_count or any(each.kind in _UNRANKED for each in outcome.degradations):
            self._depth.observe(outcome.reranked_count)


class IngestMetrics:
    """Counts documents as they are acknowledged."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._documents = Counter(
            "winnow_ingest_documents", "Documents acknowledged, by what became of them.", ["outcome"], registry=registry
        )

    def acknowledged(self, group: Sequence[Acknowledgement]) -> None:
        """Counts a group."""
        for each in group:
            self._documents.labels(each.outcome.value).inc()


class ReembedMetrics:
    """Tells how far re-embeddings are, all together, and counts how they end."""

    def __init__(self, registry: CollectorRegistry, reembedder: Reembedder) -> None:
        self._reembedder = reembedder
        in_progress = Gauge("winnow_reembeddings_in_progress", "Collections being re-embedded.", registry=registry)
        in_progress.set_function(on_loop(lambda: float(len(reembedder.progress))))
        documents = Gauge(
            "winnow_reembed_documents",
            "Documents of the collections being re-embedded, by whether they have their new vectors.",
            ["state"],
            registry=registry,
        )
        documents.labels("embedded").set_function(on_loop(self._embedded))
        documents.labels("waiting").set_function(on_loop(self._waiting))
        self._ended = Counter(
            "winnow_reembeddings", "Re-embeddings that have ended, by how.", ["outcome"], registry=registry
        )
        for outcome in ReembedOutcome:
            # At 0 from the start, or the first one would be no increase.
            self._ended.labels(outcome.value)

    def ended(self, outcome: ReembedOutcome) -> None:
        """Counts a run."""
        self._ended.labels(outcome.value).inc()

    def _embedded(self) -> float:
        return float(sum(each.embedded_count for each in self._reembedder.progress))

    def _waiting(self) -> float:
        return float(sum(each.document_count - each.embedded_count for each in self._reembedder.progress))


class HasIngests(Protocol):
    """Tells of ingests: the servicer."""

    on_acknowledged: Callable[[Sequence[Acknowledgement]], None]


def measure(registry: CollectorRegistry, searcher: Searcher, ingests: HasIngests, reembedder: Reembedder) -> None:
    """Adds the gateway's metrics to a registry. Call on the event loop that it lives on."""
    searcher.on_answer = SearchMetrics(registry).answered
    ingests.on_acknowledged = IngestMetrics(registry).acknowledged
    reembedder.on_end = ReembedMetrics(registry, reembedder).ended
    in_progress = Gauge("winnow_searches_in_progress", "Searches in progress.", registry=registry)
    in_progress.set_function(on_loop(lambda: float(searcher.in_progress)))
    breakers = Gauge(
        "winnow_backend_breaker_state",
        "1 for the state that the backend's circuit breaker is in, 0 for the others.",
        ["backend", "state"],
        registry=registry,
    )
    for backend, breaker in searcher.breakers.items():
        for state in BreakerState:
            breakers.labels(backend, state.value).set_function(_is(breaker, state))


def _is(breaker: CircuitBreaker, state: BreakerState) -> Callable[[], float]:
    return on_loop(lambda: float(breaker.state is state))
