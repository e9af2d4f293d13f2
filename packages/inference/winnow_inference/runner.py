"""Queues token sequences and feeds them to one engine, batch by batch.

The event loop owns the queue, a `Worker` thread the engine. There are no timers: an idle device takes what is there at
once, and while it works the queue grows, out of which the next batch is chosen. Requests of one class take turns. Every
request ends exactly once: with all its results, or with one fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from winnow_inference.engines.base import Engine, EngineDescription
from winnow_inference.queueing import Item, Priority, Queue, Request
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_inference.settings import InferenceSettings
from winnow_inference.worker import Worker, WorkerDied
from winnow_rpc import telemetry
from winnow_rpc.faults import DeadlineExceeded, Fault, Internal, ResourceExhausted, Unavailable

log = telemetry.get_logger("winnow.inference")

# A batch that holds a 2-core machine for a fifth of a second, and is within a tenth of its best rate.
_CPU_BATCH_TOKENS = 1024
# Enough to fill a GPU with a small model; a few milliseconds.
_GPU_BATCH_TOKENS = 16_384

_FIRST_RESTART_SECONDS = 0.1
_LONGEST_RESTART_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class RunnerLimits:
    """Bounds of a runner."""

    max_batch_tokens: int
    """Tokens of a batch, padding included."""
    max_queued_tokens: int
    """Tokens that may wait, requests of both classes together."""
    max_batch_count: int = 256
    """Sequences of a batch."""
    window_count: int = 256
    """Waiting sequences among which a batch is chosen."""
    bulk_patience_seconds: float = 1.0
    """Bulk work that has been passed over for this long gets one batch."""
    bulk_share: float = 0.75
    """Share of the queue that bulk work may fill, so that a query always finds room."""


def runner_limits(settings: InferenceSettings, *, on_cpu: bool) -> RunnerLimits:
    """The limits that the settings say, or the device's own where they leave it open."""
    return RunnerLimits(
        max_batch_tokens=settings.max_batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS),
        max_queued_tokens=settings.max_queued_tokens,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Results of those sequences of one request that were in one batch."""

    indexes: list[int]
    """Positions in the request, rising."""
    rows: Matrix
    """Their results, in the order of `indexes`."""
    token_count: int
    """Their tokens."""
    queue_micros: int
    """From admission until the request's first batch began."""
    inference_micros: int
    """Model time of the batch, whoever else was in it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """All results of a request."""

    rows: Matrix
    """One row a sequence, in their order."""
    queue_micros: int
    """From admission until its first batch began."""
    inference_micros: int
    """Model time of all batches in which it took part."""


class Runner:
    """Runs sequences of many callers on one engine. Make it and use it on one event loop; `start` it first."""

    def __init__(self, make_engine: Callable[[], Engine], limits: RunnerLimits) -> None:
        self._make_engine = make_engine
        self._limits = limits
        self._queue = Queue(
            token_budget=limits.max_batch_tokens,
            max_count=limits.max_batch_count,
            window_count=limits.window_count,
            bulk_patience=limits.bulk_patience_seconds,
        )
        self._room: deque[asyncio.Future[None]] = deque()
        self._work = asyncio.Event()
        self._worker: Worker | None = None
        self._description: EngineDescription | None = None
        self._width = 0
        self._refusal: Callable[[], Fault] | None = lambda: Unavailable("not started", reason="NOT_STARTED")
        self._running: set[Request] = set()
        self._driver: asyncio.Task[None] | None = None
        self._tokens_per_second = 0.0

    @property
    def description(self) -> EngineDescription:
        """The engine's, known once started."""
        assert self._description is not None, "not started"
        return self._description

    @property
    def limits(self) -> RunnerLimits:
        """What it was given."""
        return self._limits

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device."""
        return self._queue.tokens

    async def start(self) -> None:
        """Makes the engine; raises what that raised."""
        await self._start_worker()
        self._driver = asyncio.create_task(self._drive(), name="inference runner")

    async def close(self) -> None:
        """Fails what waits, lets the batch on the device end, and releases the engine."""
        self._refusal = lambda: Unavailable("the service is stopping", reason="STOPPING")
        if self._driver:
            self._driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._driver
        self._fail_all(self._refusal)
        if self._worker:
            await self._worker.stop()

    async def probe(self) -> None:
        """One small forward pass through the queue, before all bulk work; raises if that fails."""
        one = TokenSequence(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32))
        await self.run([one], priority=Priority.INTERACTIVE)

    def refuse_if_full(self) -> None:
        """Raises ResourceExhausted if there is no room at all: no time goes into tokenizing what must be refused."""
        if self._queue.tokens >= self._limits.max_queued_tokens:
            raise self._full(0)

    async def run(
        self,
        sequences: Sequence[TokenSequence],
        *,
        priority: Priority,
        deadline: float | None = None,
        wait_for_room: bool = False,
    ) -> Answer:
        """Results of all sequences, run in whatever order is fastest. Arguments and faults as for `stream`."""
        rows = np.empty((len(sequences), self._width), dtype=np.float32)
        queue_micros = inference_micros = 0
        parts = self.stream(
            sequences, priority=priority, deadline=deadline, in_order=False, wait_for_room=wait_for_room
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                rows[part.indexes] = part.rows
                queue_micros = part.queue_micros
                inference_micros += part.inference_micros
        return Answer(rows, queue_micros, inference_micros)

    async def stream(
        self,
        sequences: Sequence[TokenSequence],
        *,
        priority: Priority,
        deadline: float | None = None,
        in_order: bool = True,
        wait_for_room: bool = False,
    ) -> AsyncGenerator[Part, None]:
        """Results as they come, each sequence in exactly one part; with `in_order`, the first sequences first.

        `deadline` is a time of `time.monotonic()`; what has not begun then is dropped. To cancel, close the generator.
        With `wait_for_room` a full queue is waited for, else it raises ResourceExhausted at once. Also raises
        DeadlineExceeded; Unavailable if the engine is lost; Internal if the model fails on one of these sequences.
        """
        request = Request(sequences, priority=priority, deadline=deadline, in_order=in_order)
        await self._admit(request, wait=wait_for_room)
        try:
            while request.unanswered:
                outcome = await self._next_outcome(request)
                if isinstance(outcome, Fault):
                    raise outcome
                request.unanswered -= len(outcome.indexes)
                yield outcome
        finally:
            request.closed = True
            self._queue.withdraw(request)
            self._wake_room()

    async def _next_outcome(self, request: Request) -> Part | Fault:
        try:
            async with asyncio.timeout_at(_loop_time(request.deadline)):
                outcome = await request.outcomes.get()
        except TimeoutError:
            return _expired()
        assert isinstance(outcome, Part | Fault)
        return outcome

    async def _admit(self, request: Request, *, wait: bool) -> None:
        share = self._limits.bulk_share if request.priority is Priority.BULK else 1.0
        limit = int(self._limits.max_queued_tokens * share)
        if request.tokens > limit:
            raise ResourceExhausted(
                f"the request has {request.tokens:,} tokens; {limit:,} may wait at once, so send it in parts",
                reason="REQUEST_TOO_LARGE",
                metadata={"token_count": str(request.tokens), "max_queued_tokens": str(limit)},
            )
        while self._refusal is None and self._queue.tokens + request.tokens > limit:
            if not wait:
                raise self._full(request.tokens)
            room = asyncio.get_running_loop().create_future()
            self._room.append(room)
            try:
                async with asyncio.timeout_at(_loop_time(request.deadline)):
                    await room
            except TimeoutError:
                raise _expired() from None
        if self._refusal is not None:
            raise self._refusal()
        self._queue.add(request)
        self._work.set()

    def _full(self, tokens: int) -> ResourceExhausted:
        waiting = self._queue.tokens
        rate = self._tokens_per_second
        return ResourceExhausted(
            f"{waiting:,} tokens are waiting, and {self._limits.max_queued_tokens:,} may",
            reason="QUEUE_FULL",
            metadata={"queued_tokens": str(waiting), "token_count": str(tokens)},
            # By then a good part of what waits now is done.
            retry_after=min(max(0.5 * waiting / rate, 0.05), 30.0) if rate else 1.0,
        )

    def _wake_room(self) -> None:
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    async def _drive(self) -> None:
        while True:
            await self._work.wait()
            for request in self._queue.expired(time.monotonic()):
                self._end(request, _expired())
            batch = self._queue.next_batch(time.monotonic())
            if not batch:
                self._work.clear()
                continue
            self._wake_room()
            self._running = {item.request for item in batch}
            try:
                await self._execute(batch)
                self._running = set()
            except WorkerDied as death:
                log.error("inference worker died", error=str(death))
                await self._restart()
            except Exception as error:  # a mistake of ours must not leave callers waiting either
                log.error("inference runner failed", exc_info=error)
                self._fail_all(lambda: Internal("the batch could not be handled", reason="INFERENCE_FAILED"))

    async def _execute(self, batch: Sequence[Item]) -> None:
        """Runs a batch and hands out its results; a failing one is halved until the culprit is alone."""
        batch = [item for item in batch if not item.request.closed]
        if not batch:
            return
        assert self._worker is not None
        now = time.monotonic()
        for item in batch:
            item.request.began = min(item.request.began, now)
        try:
            rows, micros = await self._worker.run([item.sequence for item in batch])
        except WorkerDied:
            raise
        except Exception as error:
            if len(batch) == 1:
                log.error("inference failed", tokens=len(batch[0].sequence), exc_info=error)
                self._end(batch[0].request, Internal("the model failed on a text", reason="INFERENCE_FAILED"))
                return
            half = len(batch) // 2
            await self._execute(batch[:half])
            await self._execute(batch[half:])
            return
        self._measure(sum(len(item.sequence) for item in batch), micros)
        self._hand_out(batch, rows, micros)

    def _hand_out(self, batch: Sequence[Item], rows: Matrix, micros: int) -> None:
        finite = np.logical_and.reduce(np.isfinite(rows), axis=1)
        shares: dict[Request, list[int]] = {}
        for position, item in enumerate(batch):
            if finite[position]:
                shares.setdefault(item.request, []).append(position)
            else:
                self._end(item.request, Internal("the model gave no finite numbers for a text", reason="NOT_FINITE"))
        for request, positions in shares.items():
            if request.closed:
                continue
            positions.sort(key=lambda position: batch[position].index)
            request.outcomes.put_nowait(
                Part(
                    indexes=[batch[position].index for position in positions],
                    rows=rows[positions],
                    token_count=sum(len(batch[position].sequence) for position in positions),
                    queue_micros=round((request.began - request.admitted) * 1e6),
                    inference_micros=micros,
                )
            )

    def _measure(self, tokens: int, micros: int) -> None:
        rate = tokens * 1e6 / max(micros, 1)
        self._tokens_per_second = 0.8 * self._tokens_per_second + 0.2 * rate if self._tokens_per_second else rate

    def _end(self, request: Request, fault: Fault) -> None:
        """Ends a request with a fault, once; what it still has waiting is dropped."""
        if request.closed:
            return
        request.closed = True
        self._queue.withdraw(request)
        request.outcomes.put_nowait(fault)

    def _fail_all(self, fault: Callable[[], Fault]) -> None:
        for request in {*self._queue.requests(), *self._running}:
            self._end(request, fault())
        self._running = set()
        self._wake_room()

    async def _restart(self) -> None:
        """Fails everyone, then makes workers until one stands. Until then every request and probe is refused."""
        self._refusal = lambda: Unavailable(
            "the model's worker died and is being restarted", reason="ENGINE_LOST", retry_after=1.0
        )
        self._fail_all(self._refusal)
        pause = _FIRST_RESTART_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RESTART_SECONDS)
            try:
                await self._start_worker()
            except Exception as error:
                log.error("inference worker does not start", error=f"{type(error).__name__}: {error}")
            else:
                log.info("inference worker restarted")
                return

    async def _start_worker(self) -> None:
        self._worker = Worker(self._make_engine)
        engine = await self._worker.start()
        self._description, self._width = engine.description, engine.width
        self._refusal = None


def _expired() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before all was computed", reason="DEADLINE_EXCEEDED")


def _loop_time(deadline: float | None) -> float | None:
    """A time of `time.monotonic()` on the clock of the running loop."""
    return None if deadline is None else deadline - time.monotonic() + asyncio.get_running_loop().time()
