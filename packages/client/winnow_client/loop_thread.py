"""An event loop in a thread, so that code without one can run coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from winnow_rpc.faults import FailedPrecondition

ResultT = TypeVar("ResultT")


class LoopThread:
    """Runs coroutines in an event loop of its own. The thread is a daemon: forgetting `stop` keeps no process alive."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="winnow client", daemon=True)
        self._stopped = False
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Runs a coroutine to its end and returns what it returns. Ctrl-C here cancels it there."""
        if self._stopped:
            coroutine.close()
            raise FailedPrecondition("the client is closed", reason="CLIENT_CLOSED")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a blocking call from within the client's own event loop would wait for itself")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancels what still runs and ends the thread. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            remaining = asyncio.all_tasks(self._loop)
            for task in remaining:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*remaining, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()
