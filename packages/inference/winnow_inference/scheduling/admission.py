"""Who may wait for the device, and who is sent away at once. Pure arithmetic on tokens and rates."""

from __future__ import annotations

from collections.abc import Iterable

from winnow_rpc.faults import ResourceExhausted

# While no rate has been measured yet.
_UNKNOWN_RETRY_SECONDS = 1.0
_SHORTEST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 30.0


def expected_wait_seconds(
    tokens: int, ahead: Iterable[int], *, turn_tokens: float, tokens_per_second: float, busy_seconds: float = 0.0
) -> float:
    """How long a request of `tokens` would wait for others until it is done; 0 while no rate is known.

    `ahead` holds the waiting tokens of the others. They take turns, each turn worth `turn_tokens`, so that none of them
    costs the newcomer more than its own size, or one turn if that is more. `busy_seconds` is what the device is at.
    """
    if not tokens_per_second:
        return 0.0
    most = max(float(tokens), turn_tokens)
    return busy_seconds + sum(min(waiting, most) for waiting in ahead) / tokens_per_second


def retry_seconds(waiting_tokens: int, tokens_per_second: float) -> float:
    """When to come back: by then half of what waits now is done."""
    if not tokens_per_second:
        return _UNKNOWN_RETRY_SECONDS
    return min(max(0.5 * waiting_tokens / tokens_per_second, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)


def too_large(tokens: int, *, limit: int) -> ResourceExhausted:
    """The fault for a request that could never wait, even alone."""
    return ResourceExhausted(
        f"the request has {tokens:,} tokens; {limit:,} may wait at once, so send it in parts",
        reason="REQUEST_TOO_LARGE",
        metadata={"token_count": str(tokens), "max_queued_tokens": str(limit)},
    )


def queue_full(tokens: int, *, waiting: int, limit: int, tokens_per_second: float) -> ResourceExhausted:
    """The fault for a request for which there is no room now."""
    return ResourceExhausted(
        f"{waiting:,} tokens are waiting, and {limit:,} may",
        reason="QUEUE_FULL",
        metadata={"queued_tokens": str(waiting), "token_count": str(tokens)},
        retry_after=retry_seconds(waiting, tokens_per_second),
    )


def wait_too_long(
    tokens: int, *, wait: float, limit: float, waiting: int, tokens_per_second: float
) -> ResourceExhausted:
    """The fault for a request that would wait longer than it may."""
    return ResourceExhausted(
        f"the request would wait about {wait * 1000:,.0f} ms for its turn; {limit * 1000:,.0f} ms are allowed",
        reason="WAIT_TOO_LONG",
        metadata={
            "queued_tokens": str(waiting),
            "token_count": str(tokens),
            "expected_wait_micros": str(round(wait * 1e6)),
        },
        retry_after=retry_seconds(waiting, tokens_per_second),
    )
