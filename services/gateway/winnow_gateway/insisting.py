"""The faults of searches whose callers will not have less: no answer without reranking, or none under a depth."""

from __future__ import annotations

from winnow_gateway.outcomes import Cause
from winnow_rpc.faults import DeadlineExceeded, Fault, Unavailable

_RETRY_AFTER_SECONDS = 1.0


def unranked(cause: Cause, fault: Fault | None, *, retry_after: float | None = None) -> Fault:
    """The fault of a search that must be reranked and cannot be."""
    why = cause.because("reranker", fault)
    if cause is Cause.NO_TIME:
        return DeadlineExceeded(f"reranking is required: {why}", reason="NO_TIME_TO_RERANK")
    return _unavailable("reranker", f"reranking is required, and {why}", cause, fault, retry_after)


def floor_missed(
    cause: Cause,
    fault: Fault | None,
    *,
    floor: int,
    reached: int,
    backend: str = "reranker",
    retry_after: float | None = None,
) -> Fault:
    """The fault of a search that reranked fewer candidates than its caller insists on, because of `backend` or of the
    time."""
    why = "there was no time for more" if cause is Cause.NO_TIME else cause.because(backend, fault)
    message = f"{floor} candidates are to be reranked, no fewer, and {reached} were: {why}"
    figures = {"depth": str(floor), "reranked_count": str(reached)}
    if cause is Cause.NO_TIME:
        return DeadlineExceeded(message, reason="FLOOR_NOT_REACHED", metadata=figures)
    return _unavailable(backend, message, cause, fault, retry_after, **figures)


def _unavailable(
    backend: str, message: str, cause: Cause, fault: Fault | None, retry_after: float | None, **figures: str
) -> Fault:
    return Unavailable(
        message,
        reason=f"{backend.upper()}_UNAVAILABLE",
        metadata={"cause": cause.value, **figures},
        retry_after=retry_after or (fault.retry_after if fault else None) or _RETRY_AFTER_SECONDS,
    )
