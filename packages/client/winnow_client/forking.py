"""Says so where gRPC cannot work: in a process forked from one with a connection, every call would wait for ever, even
of a new client and past its deadline (grpcio 1.85)."""

from __future__ import annotations

import os
from weakref import WeakSet

import grpc

from winnow_rpc.faults import FailedPrecondition


class _Open:
    """The channels that are open in this process, and whether there were any in the one that it was forked from."""

    def __init__(self) -> None:
        self.channels: WeakSet[grpc.aio.Channel] = WeakSet()
        self.inherited = False

    def forked(self) -> None:
        """This process has just been forked."""
        self.inherited = self.inherited or bool(self.channels)


_open = _Open()
os.register_at_fork(after_in_child=_open.forked)


def opened(channel: grpc.aio.Channel) -> None:
    """A channel was opened."""
    _open.channels.add(channel)


def closed(channel: grpc.aio.Channel) -> None:
    """A channel was closed."""
    _open.channels.discard(channel)


def inherited() -> bool:
    """Whether this process was forked from one with a channel open. Even closing one, or letting go of it, would then
    wait for ever."""
    return _open.inherited


def check() -> None:
    """Raises FailedPrecondition (FORKED) where calls cannot be made."""
    if _open.inherited:
        raise FailedPrecondition(
            "this process was forked from one that had a connection open, and gRPC does not work in it: close clients "
            "before the fork, make the first call after it, or start processes by spawn or forkserver",
            reason="FORKED",
        )
