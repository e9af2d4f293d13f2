"""How long a call may take, as gRPC takes it."""

from __future__ import annotations

import math

from winnow_rpc.faults import DeadlineExceeded, InvalidArgument

_LONGEST_TIMEOUT_SECONDS = 1e9
"""Longer is no limit: what does not fit its clock, gRPC takes for a deadline that has passed."""


def time_limit(timeout: float | None) -> float | None:
    """A time limit as gRPC takes it. Raises DeadlineExceeded where no time is left: gRPC might yet make the call."""
    if timeout is None or timeout > _LONGEST_TIMEOUT_SECONDS:
        return None
    if math.isnan(timeout):
        raise InvalidArgument("timeout is not a number", field="timeout", reason="OUT_OF_RANGE")
    if timeout <= 0:
        raise DeadlineExceeded(f"timeout is {timeout:g} seconds: no time is left to ask the gateway")
    return timeout
