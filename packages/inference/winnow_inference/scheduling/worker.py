"""The threads on which an engine lives: one for each of its lanes. It is made, runs and is closed there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from winnow_inference.engines.base import Engine, EngineLost
from winnow_inference.machine import set_niceness
from winnow_inference.sequences import Matrix, TokenSequence

T = TypeVar("T")

# Bulk work on lanes of its own makes way for everything else that wants a core: a query under full bulk load took 17
# ms at p99 with this, 20 without, and 29 where the express lanes were as nice.
_BULK_NICENESS = 10


class WorkerDied(Exception):
    """The thread has ended; nothing that it was given will be answered any more."""


class Recalled(Exception):
    """The batch was taken back before it began, or nobody wanted it any more."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of a batch."""

    rows: Matrix
    """The engine's results."""
    seconds: float
    """Time that they took on the device."""


class Job:
    """A batch on its way through a lane."""

    def __init__(self, batch: Sequence[TokenSequence], is_wanted: Callable[[], bool]) -> None:
        self.size = len(batch)
        """Its sequences."""
        self.prepared: Any = None
        """What the engine made of it; set before it is submitted."""
        self.is_wanted = is_wanted
        """Asked on the lane's thread just before it begins: does anybody still wait for it?"""
        self.done: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self.began: float | None = None
        """When it began, on the clock of `time.monotonic()`; None: it has not."""
        self.passed_over_since = float("inf")
        """When its class had got the batch before this one, or begun to wait for it; infinite: nobody asks."""


class Worker:
    """Runs batches on one lane, one after the other. The next one lies ready while one runs.

    Ordinary exceptions of the engine concern one batch. `EngineLost`, and whatever is no `Exception` at all, ends the
    thread: the batch and every later one gets `WorkerDied`.
    """

    def __init__(self, lane: int, open_engine: Callable[[], Engine], close_engine: Callable[[], None]) -> None:
        """`open_engine` gives the engine, on the lane's thread; `close_engine` is called there when it ends."""
        self.lane = lane
        """Its lane's number."""
        self._open_engine = open_engine
        self._close_engine = close_engine
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[Job | None] = deque()
        self._changed = threading.Condition()
        self._started: asyncio.Future[Engine] = self._loop.create_future()
        self._pending: list[Job] = []
        self._dead = False
        self._thread = threading.Thread(target=self._main, name=f"inference lane {lane}", daemon=True)

    @property
    def pending(self) -> Sequence[Job]:
        """Batches that it was given and has not finished, in their order."""
        return self._pending

    async def start(self) -> Engine:
        """Starts the thread; raises what opening the engine raised."""
        self._thread.start()
        return await self._started

    def submit(self, job: Job) -> None:
        """Puts a batch behind those that it has. `job.done` gets what came of it: the engine's exception, Recalled, or
        WorkerDied where there are no results."""
        self._pending.append(job)
        job.done.add_done_callback(lambda _: self._forget(job))
        if self._dead:
            _fail(job.done, WorkerDied())
            return
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def recall(self, job: Job) -> bool:
        """Takes a batch back; False if it has begun."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
        self._forget(job)
        _fail(job.done, Recalled())
        return True

    def _forget(self, job: Job) -> None:
        if job in self._pending:
            self._pending.remove(job)

    async def stop(self, *, patience_seconds: float = 10.0) -> None:
        """Ends the thread after the batch it is at; gives up waiting for it after a while (it is a daemon)."""
        if self._thread.ident is None:
            return  # it was never started
        with self._changed:
            self._jobs.append(None)
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, patience_seconds)

    def _main(self) -> None:
        try:
            engine = self._open_engine()
        except BaseException as error:
            self._post(_fail, self._started, error if isinstance(error, Exception) else WorkerDied(repr(error)))
            self._post(self._bury)
            return
        if engine.lanes.express and self.lane < engine.lanes.count:
            set_niceness(_BULK_NICENESS)
        self._post(_resolve, self._started, engine)
        job: Job | None = None
        try:
            while (job := self._next()) is not None:
                if not job.is_wanted():
                    self._post(_fail, job.done, Recalled())
                    continue
                try:
                    computed = _run(engine, job, self.lane)
                except EngineLost as error:
                    self._post(_fail, job.done, WorkerDied(str(error)))
                    return
                except Exception as error:  # the caller splits the batch until the culprit is alone
                    self._post(_fail, job.done, error)
                else:
                    self._post(_resolve, job.done, computed)
        except BaseException as error:  # a thread that ends in silence would leave callers waiting
            if job is not None:
                self._post(_fail, job.done, WorkerDied(repr(error)))
        finally:
            self._post(self._bury)
            with contextlib.suppress(Exception):
                self._close_engine()

    def _next(self) -> Job | None:
        with self._changed:
            while not self._jobs:
                self._changed.wait()
            job = self._jobs.popleft()
            if job is not None:
                job.began = time.monotonic()
            return job

    def _bury(self) -> None:
        self._dead = True
        for job in list(self._pending):
            _fail(job.done, WorkerDied())

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        # The loop may be closed by the time that a last batch ends; then nobody waits for it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)


def _run(engine: Engine, job: Job, lane: int) -> Computed:
    began = time.perf_counter()
    rows = engine.run(job.prepared, lane)
    if rows.shape != (job.size, engine.width):
        msg = f"the engine gave {rows.shape} for {job.size} sequences of width {engine.width}"
        raise ValueError(msg)
    return Computed(rows, time.perf_counter() - began)


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # its caller may have gone
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class Crew:
    """An engine and the workers of all its lanes."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._workers: list[Worker] = []
        self._others_ended = threading.Event()

    @property
    def engine(self) -> Engine:
        """The engine, once started; its `run` is for the workers alone."""
        assert self._engine is not None, "not started"
        return self._engine

    @property
    def common(self) -> Sequence[Worker]:
        """Workers of the lanes that are not express."""
        return self._workers[: self.engine.lanes.count]

    @property
    def express(self) -> Sequence[Worker]:
        """Workers of the express lanes."""
        return self._workers[self.engine.lanes.count :]

    @property
    def workers(self) -> Sequence[Worker]:
        """All of them."""
        return self._workers

    async def start(self) -> None:
        """Makes the engine on lane 0, then starts the other lanes; raises what making it raised."""
        first = Worker(0, self._open_engine, self._close_engine)
        self._workers = [first]
        engine = await first.start()
        others = [Worker(lane, lambda: engine, _nothing) for lane in range(1, engine.lanes.total)]
        self._workers += others
        await asyncio.gather(*(worker.start() for worker in others))

    async def stop(self) -> None:
        """Ends all lanes, lane 0, which closes the engine, last."""
        await asyncio.gather(*(worker.stop() for worker in self._workers[1:]))
        self._others_ended.set()
        for worker in self._workers[:1]:
            await worker.stop()

    def _open_engine(self) -> Engine:
        self._engine = self._make_engine()
        return self._engine

    def _close_engine(self) -> None:
        if len(self._workers) > 1:  # lane 0 may have died while others still compute
            self._others_ended.wait()
        if self._engine is not None:
            self._engine.close()


def _nothing() -> None:
    """What a lane that did not make the engine does at its end."""
