"""Says so where gRPC cannot work: in a process forked from one with a connection, every call would wait for ever, even
of a new client and past its deadline (grpcio 1.85)."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

import grpc

from winnow_rpc.faults import FailedPrecondition

# What ends the names of the threads in which grpc.aio polls, as long as anything of it is in use.
_POLLER = "(_poll_wrapper)"


class _Open:
    """The channels that are open in this process, and whether gRPC was in use in the one that it was forked from."""

    def __init__(self) -> None:
        self.channels: WeakSet[grpc.aio.Channel] = WeakSet()
        self.inherited = False
        self._in_use = False

    def forking(self) -> None:
        """This process is about to be forked."""
        # A channel that was closed is still in use while anything holds a method of it, as the traceback of a call that
        # failed does.
        polling = any(thread.name.endswith(_POLLER) for thread in threading.enumerate())
        self._in_use = polling or bool(self.channels)

    def forked(self) -> None:
        """This process has just been forked."""
        if self._in_use and not self.inherited:
            self.inherited = True
            # One user more, who never ends: when the last one does, gRPC waits for its poller, which is not here.
            grpc.aio.init_grpc_aio()


_open = _Open()
os.register_at_fork(before=_open.forking, after_in_child=_open.forked)


def opened(channel: grpc.aio.Channel) -> None:
    """A channel was opened."""
    _open.channels.add(channel)


def closed(channel: grpc.aio.Channel) -> None:
    """A channel was closed."""
    _open.channels.discard(channel)


def inherited() -> bool:
    """Whether this process was forked from one that used gRPC. Even closing a channel would then wait for ever."""
    return _open.inherited


def check() -> None:
    """Raises FailedPrecondition (FORKED) where calls cannot be made."""
    if _open.inherited:
        raise FailedPrecondition(
            "this process was forked from one that had a connection open, or the error of a failed call at hand, and "
            "gRPC does not work in it: close clients and let go of errors before the fork, make the first call after "
            "it, or start processes by spawn or forkserver",
            reason="FORKED",
        )
