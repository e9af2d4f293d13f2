"""How much one call of a backend may hold. A model service counts in tokens, which only it knows; when it refuses a
call as too large, it says by how much. The index counts bytes of messages. Pure."""

from __future__ import annotations

import math

from winnow_rpc.faults import Fault, ResourceExhausted

_TOO_LARGE = frozenset(("REQUEST_TOO_LARGE", "MESSAGE_TOO_LARGE"))
# A call that fills all the room there is would find it taken by anything else that waits.
_SHARE = 0.5


def is_too_large(fault: Fault | None) -> bool:
    """Whether a call was refused because it, or its answer, holds more than may ever pass at once: only a smaller one
    can succeed."""
    return isinstance(fault, ResourceExhausted) and fault.reason in _TOO_LARGE


def smaller_call(texts: int, refusal: Fault) -> int:
    """How many texts to send at once after a call of so many, at least 2, was refused as too large; at least 1."""
    half = texts // 2
    tokens = _stated(refusal, "token_count")
    return max(1, int(min(half, texts * call_tokens(refusal) / tokens))) if tokens else half


def call_tokens(refusal: Fault) -> float:
    """Tokens that a call should not hold more of after such a refusal; infinite if it does not say."""
    return _SHARE * (_stated(refusal, "max_queued_tokens") or math.inf)


def _stated(refusal: Fault, name: str) -> int | None:
    try:
        return int(refusal.metadata[name])
    except (KeyError, ValueError):
        return None
