"""Tells a message that gRPC refused from a caller who went away, which look alike.

A message over the limit ends its call inside gRPC. Whoever reads is told that there are no more messages, and a moment
later the call is cancelled: just so it is when a caller gives up. But then the read ends well, and here it fails, and
of a read that failed gRPC's extension module writes a line into its debug log, in the task that reads. Nothing else
says it (grpcio 1.85).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

from winnow_rpc.faults import ResourceExhausted

T = TypeVar("T")

_LOGGER = logging.getLogger("grpc._cython.cygrpc")
_FAILED_READ = "Failed to receive any message from Core"


@dataclass(slots=True)
class Reading:
    """The reading of one call's messages."""

    refused: bool = False
    """Whether gRPC refused one of them."""


def fault() -> ResourceExhausted:
    """What has become of a call of which a message was refused. Its caller was told so by gRPC, in other words."""
    return ResourceExhausted(
        "gRPC refused a message: it is larger than max_message_bytes, or cannot be unpacked", reason="MESSAGE_REFUSED"
    )


class Watched(AsyncIterator[T], Generic[T]):
    """The messages of a stream, unchanged; notes in `reading` if one was refused."""

    def __init__(self, messages: AsyncIterator[T], reading: Reading) -> None:
        self._messages = messages
        self._reading = reading

    async def __anext__(self) -> T:
        token = _current.set(self._reading)
        try:
            return await anext(self._messages)
        finally:
            # What else the task reads, from a backend for instance, is none of this call's.
            _current.reset(token)


def watch(reading: Reading | None) -> None:
    """From now on a read that fails in this task is of this call; of none, with None."""
    _current.set(reading)


def listen() -> None:
    """Begins to notice: call before the first call is served. Again does no harm."""
    _LOGGER.setLevel(logging.DEBUG)
    _LOGGER.addFilter(_filter)


_current: ContextVar[Reading | None] = ContextVar("winnow_reading", default=None)


def _filter(record: logging.LogRecord) -> bool:
    """Hears of failed reads, and lets through what would be written without `listen`."""
    if (reading := _current.get()) and str(record.msg).startswith(_FAILED_READ):
        reading.refused = True
    return _LOGGER.parent is None or _LOGGER.parent.isEnabledFor(record.levelno)
