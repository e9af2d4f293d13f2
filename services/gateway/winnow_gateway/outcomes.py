"""What a search answers, and in what that is less than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from winnow_gateway.breaking import BreakerOpen
from winnow_gateway.documents import Document
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing, Placed, StagePlace
from winnow_gateway.planning import RetrievalKind, SearchMode
from winnow_rpc.faults import DeadlineExceeded, FailedPrecondition, Fault, ResourceExhausted


class DegradationKind(Enum):
    """A way in which an answer is less than what was asked for."""

    RERANK_PARTIAL = "rerank-partial"
    RERANK_SKIPPED = "rerank-skipped"
    EMBEDDER_UNAVAILABLE = "embedder-unavailable"
    INDEX_PARTIAL = "index-partial"
    QUERY_TRUNCATED = "query-truncated"


class Cause(Enum):
    """Why a stage did not do all of its work; the value is the degradation's reason, for machines."""

    NO_TIME = "NO_TIME"
    UNAVAILABLE = "UNAVAILABLE"
    BREAKER_OPEN = "BREAKER_OPEN"
    OVERLOADED = "OVERLOADED"
    TOO_LARGE = "TOO_LARGE"
    MODEL_CHANGED = "MODEL_CHANGED"

    @staticmethod
    def of(fault: Fault) -> Cause:
        """What a fault of a backend amounts to."""
        match fault:
            case DeadlineExceeded():
                return Cause.NO_TIME
            case ResourceExhausted():
                return Cause.OVERLOADED
            case BreakerOpen():
                return Cause.BREAKER_OPEN
            case FailedPrecondition(reason="MODEL_MISMATCH"):
                return Cause.MODEL_CHANGED
            case _:
                return Cause.UNAVAILABLE

    def because(self, backend: str, fault: Fault | None = None) -> str:
        """The cause as the end of a sentence on a backend."""
        match self:
            case Cause.NO_TIME:
                return "there was no time left for it"
            case Cause.BREAKER_OPEN:
                return f"the {backend} has failed several times in a row and is given a pause"
            case Cause.TOO_LARGE:
                return "more does not fit into one answer"
            case Cause.OVERLOADED:
                return f"the {backend} has too much to do" + (f" ({fault.message})" if fault else "")
            case Cause.MODEL_CHANGED:
                return f"the {backend} serves another model by now"
            case Cause.UNAVAILABLE:
                return f"the {backend} failed" + (f" ({fault.message})" if fault else "")


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way in which an answer is less than what was asked for, for machines and for a person."""

    kind: DegradationKind
    reason: str
    message: str
    affected_count: int = 0


def query_truncated(dropped: int) -> Degradation:
    """The embedder did not read the end of the query."""
    return Degradation(
        DegradationKind.QUERY_TRUNCATED,
        "TOO_LONG",
        f"the query is too long for the embedder: its last {dropped} tokens were not read",
        dropped,
    )


def embedder_unavailable(cause: Cause, fault: Fault | None) -> Degradation:
    """BM25 alone answered."""
    return Degradation(
        DegradationKind.EMBEDDER_UNAVAILABLE,
        cause.value,
        f"BM25 alone found the candidates: the query was not embedded, because {cause.because('embedder', fault)}",
    )


def rerank_skipped(cause: Cause, fault: Fault | None, *, missed: int) -> Degradation:
    """Nothing was reranked."""
    return Degradation(
        DegradationKind.RERANK_SKIPPED,
        cause.value,
        f"the order is that of retrieval: nothing was reranked, because {cause.because('reranker', fault)}",
        missed,
    )


def rerank_partial(cause: Cause, fault: Fault | None, *, reranked: int, wish: int) -> Degradation:
    """Less was reranked than was wished for."""
    why = "there was no time for more" if cause is Cause.NO_TIME else cause.because("reranker", fault)
    return Degradation(
        DegradationKind.RERANK_PARTIAL,
        "DEADLINE" if cause is Cause.NO_TIME else cause.value,
        f"{reranked} of {wish} candidates were reranked, because {why}",
        wish - reranked,
    )


def texts_cut(cause: Cause, fault: Fault | None, *, count: int) -> Degradation:
    """The index did not give the whole of long texts."""
    return Degradation(
        DegradationKind.INDEX_PARTIAL,
        cause.value,
        f"{count} hits have only the beginning of their text, because {cause.because('index', fault)}",
        count,
    )


def documents_missed(cause: Cause, fault: Fault | None, *, count: int) -> Degradation:
    """Some of the documents that were all to be reranked were not fetched."""
    return Degradation(
        DegradationKind.INDEX_PARTIAL,
        cause.value,
        f"about {count} documents were not fetched for reranking, because {cause.because('index', fault)}",
        count,
    )


@dataclass(slots=True)
class SearchTiming:
    """Where the time went, in microseconds; tokens beside it."""

    total_micros: int = 0
    embed_micros: int = 0
    retrieve_micros: int = 0
    rerank_micros: int = 0
    embed_inference_micros: int = 0
    rerank_inference_micros: int = 0
    embed_token_count: int = 0
    rerank_token_count: int = 0

    @property
    def gateway_micros(self) -> int:
        """What the gateway itself took: all that was not waiting for a stage."""
        return max(0, self.total_micros - self.embed_micros - self.retrieve_micros - self.rerank_micros)


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found, and its place after each stage."""

    document: Document
    place: Placed
    dense: StagePlace | None = None
    """Its place by vectors; None if they did not find it, or were not asked."""
    lexical: StagePlace | None = None
    """Its place by BM25, likewise."""
    probability: float | None = None
    """Calibrated probability that it is relevant; None if it was not reranked, or the model has no calibrator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """The answer to a search, or its state on the way there, and how it came about."""

    hits: Sequence[Hit]
    mode: SearchMode
    mode_reason: str
    kind: RetrievalKind
    candidate_count: int
    planned_depth: int
    reranked_count: int
    timing: SearchTiming
    degradations: Sequence[Degradation]
    embedder_fingerprint: str
    reranker_fingerprint: str
    mixing: Mixing | ScoreMixing | None
    final: bool
