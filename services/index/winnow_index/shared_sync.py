"""Acknowledgements: the engine's log on disk, once for all writers who wait.

Every operation is in the engine's write-ahead log before it is applied, and opening a shard replays what its last flush
does not cover; so an operation is safe from the loss of power once the log is synced. That lets go of the interpreter's
lock and takes a few milliseconds, where a flush of the engine holds the event loop for up to hundreds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from winnow_index import durable_files
from winnow_rpc.faults import Fault, Unavailable
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.shared_sync")

# An acknowledgement without `wait` promises the disk no sooner than this.
_SOON_SECONDS = 0.5


class SharedSync:
    """Syncs a folder that moves: the log of whichever generation serves."""

    def __init__(self, lock: asyncio.Lock, folder: Callable[[], Path]) -> None:
        self._lock = lock
        self._folder = folder
        self._waiters: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def done(self) -> None:
        """Returns when what was written before the call is on disk. Raises Unavailable if that fails."""
        waiter = self._add_waiter()
        await waiter

    def soon(self) -> None:
        """Sees to it that what was written is on disk before long."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON_SECONDS, self._now)

    def stop(self) -> None:
        """Does nothing more by itself; for when everything has been put on disk otherwise."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> None:
        self._timer = None
        # Nobody awaits this one: a failure is in the log, and the next writer who waits meets it too.
        self._add_waiter().add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def _add_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve_waiters(), name="sync")
        return waiter

    async def _serve_waiters(self) -> None:
        while self._waiters:
            # In turn, so that writers who queue already share the sync; and so that no generation is half swapped.
            async with self._lock:
                waiters, self._waiters = self._waiters, []
                folder = self._folder()
            failure: Fault | None = Unavailable("the write was interrupted before it was on disk", reason="INTERRUPTED")
            try:
                await asyncio.to_thread(durable_files.sync_folder, folder)
                failure = None
            except OSError as error:
                log.error("sync failed", folder=str(folder), error=str(error))
                failure = Unavailable(f"the write could not be put on disk: {error.strerror}", reason="DISK_FAILED")
            finally:
                for waiter in waiters:
                    if waiter.done():
                        continue
                    if failure is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(failure)
