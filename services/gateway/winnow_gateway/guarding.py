"""A call of a backend within its time, with its breaker told how it went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from winnow_gateway.breaking import BreakerOpen, CircuitBreaker, Passage
from winnow_gateway.ports import IndexDiskFault, IndexRefused
from winnow_rpc.faults import Aborted, DeadlineExceeded, Fault, Internal, Unavailable

# A call that was given less time than this, or than its caller's patience, says nothing by not coming back.
_LEAST_PATIENCE_SECONDS = 0.25


@asynccontextmanager
async def guarded(
    breaker: CircuitBreaker, backend: str, seconds: float, patience: float, *, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Around one call: ends it after `seconds`, and lets none begin while the breaker is open.

    Raises DeadlineExceeded when the time is up, and BreakerOpen when the breaker is. A call that
    does not come back counts against the backend if it was given at least `patience` seconds.
    """
    if seconds <= 0:
        raise DeadlineExceeded(f"no time is left for the {backend}", reason="DEADLINE")
    passage = breaker.enter()
    if passage is None:
        raise BreakerOpen(
            f"the {backend} has failed several times in a row and is given a pause",
            metadata={"backend": backend},
            retry_after=max(0.1, breaker.retry_after),
        )
    began = clock()
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        _judge_silence(breaker, passage, clock() - began, patience)
        raise DeadlineExceeded(f"the {backend} did not answer in time", reason=f"{backend.upper()}_TIMEOUT") from None
    except DeadlineExceeded:
        _judge_silence(breaker, passage, clock() - began, patience)
        raise
    except (IndexRefused, IndexDiskFault):
        # A mistake of ours for this call, or no room for it, and no reason to keep others from the index.
        breaker.succeeded(passage)
        raise
    except (Unavailable, Internal, Aborted):
        breaker.failed(passage)
        raise
    except Fault:
        # It answered, if not with what was hoped for.
        breaker.succeeded(passage)
        raise
    except BaseException:
        breaker.abandoned(passage)
        raise
    breaker.succeeded(passage)


def _judge_silence(breaker: CircuitBreaker, passage: Passage, silence: float, patience: float) -> None:
    if silence >= max(_LEAST_PATIENCE_SECONDS, patience):
        breaker.failed(passage)
    else:
        breaker.abandoned(passage)
