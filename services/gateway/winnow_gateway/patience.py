"""Bulk work waits for a backend that is away or has too much to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from winnow_gateway.call_sizes import is_too_large
from winnow_rpc.faults import ResourceExhausted, Unavailable
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.gateway")

T = TypeVar("T")


def _may_pass(failure: BaseException) -> bool:
    return isinstance(failure, Unavailable | ResourceExhausted) and not is_too_large(failure)


async def persist(operation: Callable[[], Awaitable[T]], *, seconds: float, work: str) -> T:
    """Repeats an idempotent operation while its backend is away or overloaded, for so many seconds; `work`, as
    "ingest", is for the log. What is too large will be so again, and is not repeated."""

    def log_wait(state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        log.warning(f"{work} waits for a backend", error=str(failure), attempt=state.attempt_number)

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2.0),
        stop=tenacity.stop_after_delay(seconds),
        before_sleep=log_wait,
        reraise=True,
    )
    async for attempt in attempts:
        with attempt:
            return await operation()
    raise AssertionError("unreachable: the last attempt raises")  # pragma: no cover
