"""An event loop in a thread, so that code without one can run coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from winnow_client import forking
from winnow_rpc.faults import Cancelled, FailedPrecondition

ResultT = TypeVar("ResultT")

# Calls of a channel that was closed end by themselves, with a fault that says so; what does not is cancelled.
_ENDING_SECONDS = 2.0


class LoopThread:
    """Runs coroutines in an event loop of its own. The thread is a daemon: forgetting `stop` keeps no process alive.

    It begins with the first coroutine, and anew in a process that was forked: threads do not come along.
    """

    def __init__(self) -> None:
        # By process: another thread may hold the lock at a fork, and is not there to let go of it. A garbage collection
        # within the lock may close a stream of the same client.
        self._locks = {os.getpid(): threading.RLock()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._stopped = False

    @property
    def running(self) -> bool:
        """Whether there is a loop in this process."""
        return self._thread is not None and self._process == os.getpid()

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs a coroutine to its end and returns what it returns. Ctrl-C here cancels it there.

        Raises FailedPrecondition: CLIENT_CLOSED after `stop`, FORKED in a process in which gRPC does not work. Raises
        Cancelled if it is stopped meanwhile.
        """
        if self.running and threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a blocking call from within the client's own event loop would wait for itself")
        with self._lock():
            if self._stopped:
                coroutine.close()
                raise FailedPrecondition("the client is closed", reason="CLIENT_CLOSED")
            try:
                # What waited in the other process holds locks in this one, and never lets go of them.
                forking.check()
                loop = self._begun()
            except BaseException:
                coroutine.close()
                raise
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self._stopped:
                raise Cancelled("the client was closed during the call", reason="CLIENT_CLOSED") from None
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Ends what still runs, and the thread. May be called twice."""
        with self._lock():
            if self._stopped:
                return
            self._stopped = True
        if self._loop is None or self._thread is None or not self.running:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _lock(self) -> threading.RLock:
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def _begun(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self.running:
            return self._loop
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, args=(loop,), name="winnow client", daemon=True)
        try:
            thread.start()
        except Exception:
            # There is no room for another thread.
            loop.close()
            raise
        except BaseException:
            # After Ctrl-C the thread runs already, and closes the loop itself.
            loop.call_soon_threadsafe(loop.stop)
            raise
        self._loop, self._thread, self._process = loop, thread, os.getpid()
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            if remaining := asyncio.all_tasks(loop):
                loop.run_until_complete(asyncio.wait(remaining, timeout=_ENDING_SECONDS))
            for task in remaining:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()
