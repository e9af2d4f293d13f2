"""The embedded engine, with what its stub leaves out and the one place that knows its failures.

Everything here is synchronous and holds the interpreter's lock: a thread would gain nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import qdrant_edge as edge

from winnow_rpc.faults import Fault, Internal
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.engine")

PointId = int | UUID
"""A point's id as the engine gives it back."""
_NOT_THE_ENGINES = (Fault, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


def rrf(k: int, weights: Sequence[float] | None) -> Any:
    """Reciprocal rank fusion: the stub lacks the constructor."""
    return cast(Any, edge.Fusion).Rrf(k, list(weights) if weights else None)


def dbsf() -> Any:
    """Distribution-based score fusion: the stub lacks the constructor."""
    return cast(Any, edge.Fusion).Dbsf()


def slice_condition(total: int, index: int) -> Any:
    """One of `total` disjoint parts of the id space: the stub lacks the class."""
    return cast(Any, edge).SliceCondition(total, index)


def refusal(action: str, error: BaseException) -> Internal:
    """The fault for a call that the engine refused although it passed validation. The engine's words go to the log."""
    log.error("engine refused", action=action, error=str(error), kind=type(error).__name__)
    return Internal(f"the engine refused to {action}; the log of the index says why", reason="ENGINE_REFUSED")


def ordering_key(point_id: PointId) -> tuple[int, int]:
    """Sorts ids as the engine does: numbers first, then UUIDs."""
    return (0, point_id) if isinstance(point_id, int) else (1, point_id.int)


class Guard:
    """Around a call of the engine: whatever it raises, panics included, becomes one fault.

    `with Guard("flush"): shard.flush()`
    """

    __slots__ = ("_action",)

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        # A panic of the engine derives from BaseException, beside the interpreter's own signals.
        if error is None or isinstance(error, _NOT_THE_ENGINES):
            return
        raise refusal(self._action, error) from error
