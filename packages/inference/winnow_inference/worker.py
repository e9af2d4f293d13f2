"""The one thread on which an engine lives: it is made, runs and is closed there."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from winnow_inference.engines.base import Engine, EngineLost
from winnow_inference.sequences import Matrix, TokenSequence

T = TypeVar("T")


class WorkerDied(Exception):
    """The thread has ended; nothing that it was given will be answered any more."""


class Worker:
    """Runs batches on a thread of its own, one after the other.

    Ordinary exceptions of the engine concern one batch. `EngineLost`, and whatever is no `Exception` at all, ends the
    thread: the batch and every later one gets `WorkerDied`.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Sequence[TokenSequence], asyncio.Future[tuple[Matrix, int]]] | None] = (
            queue.SimpleQueue()
        )
        self._started: asyncio.Future[Engine] = self._loop.create_future()
        self._pending: set[asyncio.Future[tuple[Matrix, int]]] = set()
        self._dead = False
        self._thread = threading.Thread(target=self._main, name="inference", daemon=True)

    async def start(self) -> Engine:
        """Makes the engine; raises what making it raised. Of the engine returned only the description is for others."""
        self._thread.start()
        return await self._started

    async def run(self, batch: Sequence[TokenSequence]) -> tuple[Matrix, int]:
        """The engine's results and the microseconds they took. Raises what the engine raised, or WorkerDied."""
        if self._dead:
            raise WorkerDied
        future: asyncio.Future[tuple[Matrix, int]] = self._loop.create_future()
        self._pending.add(future)
        try:
            self._jobs.put((batch, future))
            return await future
        finally:
            self._pending.discard(future)

    async def stop(self, *, patience_seconds: float = 10.0) -> None:
        """Ends the thread after the batch it is at; gives up waiting for it after a while (it is a daemon)."""
        self._jobs.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, patience_seconds)

    def _main(self) -> None:
        try:
            engine = self._make_engine()
        except BaseException as error:  # whoever starts the worker decides what it means
            self._post(_fail, self._started, error if isinstance(error, Exception) else WorkerDied(repr(error)))
            self._post(self._bury)
            return
        self._post(_resolve, self._started, engine)
        try:
            while (job := self._jobs.get()) is not None:
                batch, future = job
                try:
                    result = _run(engine, batch)
                except EngineLost as error:
                    self._post(_fail, future, WorkerDied(str(error)))
                    return
                except Exception as error:  # the caller splits the batch until the culprit is alone
                    self._post(_fail, future, error)
                else:
                    self._post(_resolve, future, result)
        except BaseException as error:  # a thread that ends in silence would leave callers waiting
            self._post(_fail, future, WorkerDied(repr(error)))
        finally:
            with contextlib.suppress(Exception):
                engine.close()
            self._post(self._bury)

    def _bury(self) -> None:
        self._dead = True
        for future in list(self._pending):
            _fail(future, WorkerDied())

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        # The loop may be closed by the time that a last batch ends; then nobody waits for it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _run(engine: Engine, batch: Sequence[TokenSequence]) -> tuple[Matrix, int]:
    began = time.perf_counter_ns()
    rows = engine.run(batch)
    if rows.shape != (len(batch), engine.width):
        msg = f"the engine gave {rows.shape} for {len(batch)} sequences of width {engine.width}"
        raise ValueError(msg)
    return rows, (time.perf_counter_ns() - began) // 1000


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # its caller may have gone
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
