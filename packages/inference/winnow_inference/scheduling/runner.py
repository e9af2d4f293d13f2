"""Queues token sequences and feeds them to one engine, batch by batch.

The event loop owns the queue, the engine's threads the device. There are no timers: an idle lane takes what is there at
once, and while it works its next batch is chosen and prepared. Requests of one class take turns. Every request ends
exactly once: with all its results, or with one fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import numpy as np

from winnow_inference.engines.base import Engine, EngineDescription
from winnow_inference.scheduling import admission
from winnow_inference.scheduling.costs import CostModel
from winnow_inference.scheduling.dispatching import Dispatcher, expired
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.observing import Batch, Observer
from winnow_inference.scheduling.parts import Answer, Part
from winnow_inference.scheduling.queueing import Priority, Queue, Request
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_rpc.faults import Fault, Unavailable

# What has been tokenized was expected to have its turn in time; a little more than was expected is no reason to refuse
# it so late. Much more is: others may have come in while it was tokenized.
_SLACK = 1.25


class Runner:
    """Runs sequences of many callers on one engine. Make it and use it on one event loop; `start` it first."""

    def __init__(self, make_engine: Callable[[], Engine], limits: RunnerLimits) -> None:
        self._limits = limits
        costs = CostModel()
        self._queue = Queue(costs=costs, bounds=limits.batch_bounds)
        self._dispatcher = Dispatcher(make_engine, self._queue, costs, limits)
        self._room: deque[asyncio.Future[None]] = deque()
        self._first_to_wait = {priority: asyncio.Lock() for priority in Priority}
        self._expected: dict[Priority, list[int]] = {priority: [] for priority in Priority}
        """Tokens of each request that is being tokenized, or waits to be."""

    @property
    def description(self) -> EngineDescription:
        """The engine's, known once started."""
        return self._dispatcher.engine.description

    @property
    def limits(self) -> RunnerLimits:
        """What it was given."""
        return self._limits

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device."""
        return self._queue.tokens + self._dispatcher.ready_tokens

    def queued_tokens_of(self, priority: Priority) -> int:
        """Those of them that are of a class."""
        waiting = sum(request.waiting_tokens for request in self._queue.of_class(priority))
        return waiting + self._dispatcher.ready_tokens_of(priority)

    def queued_requests_of(self, priority: Priority) -> int:
        """Requests of a class of which something waits for the device."""
        return len({*self._queue.of_class(priority), *self._dispatcher.ready_requests_of(priority)})

    def observe(self, observer: Observer) -> None:
        """Tells this observer, and no other, what happens from now on."""
        self._dispatcher.observer = observer

    async def start(self) -> None:
        """Makes the engine; raises what that raised."""
        await self._dispatcher.start(on_taken=self._wake_room)

    async def close(self) -> None:
        """Fails what waits, lets the batches on the device end, and releases the engine."""
        await self._dispatcher.close(lambda: Unavailable("the service is stopping", reason="STOPPING"))

    async def probe(self) -> None:
        """One small forward pass through the queue, before all bulk work; raises if that fails or a lane is stuck."""
        self._dispatcher.check_progress()
        await self.run([TokenSequence.blank(1)], priority=Priority.INTERACTIVE, always=True)

    @contextlib.contextmanager
    def expecting(self, priority: Priority, tokens: int, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Around the tokenizing of a request, which then goes to `run` or `stream`. As long as it lasts, the tokens
        that are expected of it count for whoever comes later.

        Raises ResourceExhausted for a request that would be refused if it has these: no time goes into tokenizing what
        must be refused, which on a busy machine took most of the time of a refusal. `wait_seconds` is what it would
        wait for the tokenizer.
        """
        self._refuse_if_full(priority, tokens, wait_seconds)
        self._expected[priority].append(tokens)
        try:
            yield
        finally:
            self._expected[priority].remove(tokens)

    def _refuse_if_full(self, priority: Priority, tokens: int, wait_seconds: float) -> None:
        if self._dispatcher.refusal is None and priority is Priority.INTERACTIVE:
            self._refuse_long_wait(tokens, deadline=None, behind=self._expected[priority], at_least=wait_seconds)
        limit = self._room_for(priority)
        waiting = self.queued_tokens + sum(map(sum, self._expected.values()))
        if waiting >= limit:
            raise self._full(0, limit, waiting=waiting)

    async def run(
        self,
        sequences: Sequence[TokenSequence],
        *,
        priority: Priority,
        deadline: float | None = None,
        wait_for_room: bool = False,
        always: bool = False,
    ) -> Answer:
        """Results of all sequences, run in whatever order is fastest. Arguments and faults as for `stream`."""
        rows: Matrix | None = None
        queue_micros = inference_micros = 0
        batches: list[Batch] = []
        parts = self.stream(
            sequences, priority=priority, deadline=deadline, in_order=False, wait_for_room=wait_for_room, always=always
        )
        async with contextlib.aclosing(parts):
            async for part in parts:
                if rows is None:
                    rows = np.empty((len(sequences), part.rows.shape[1]), dtype=np.float32)
                rows[part.indexes] = part.rows
                queue_micros = part.queue_micros
                inference_micros += part.inference_micros
                batches.append(part.batch)
        if rows is None:
            rows = np.empty((0, self._dispatcher.engine.width), dtype=np.float32)
        return Answer(rows, queue_micros, inference_micros, batches)

    async def stream(
        self,
        sequences: Sequence[TokenSequence],
        *,
        priority: Priority,
        deadline: float | None = None,
        in_order: bool = True,
        wait_for_room: bool = False,
        always: bool = False,
    ) -> AsyncGenerator[Part, None]:
        """Results as they come, each sequence in exactly one part; with `in_order`, the first sequences first,
        as many at a time as one batch could hold.

        `deadline` is a time of `time.monotonic()`; what has not begun then is dropped. To cancel, close the generator.
        With `wait_for_room` a full queue is waited for, but no longer than until nothing of the class is in it; else it
        raises ResourceExhausted at once, as it does if interactive work would have to wait too long; `always` asks for
        no room. Also raises DeadlineExceeded; Unavailable if the engine is lost; Internal if the model fails on one of
        these sequences.
        """
        request = Request(sequences, priority=priority, deadline=deadline, in_order=in_order)
        if not always:
            await self._find_room(request, wait=wait_for_room)
        if self._dispatcher.refusal is not None:
            raise self._dispatcher.refusal()
        self._queue.add(request)
        self._dispatcher.arrived(request)
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
            self._dispatcher.departed(request)
            self._wake_room()

    async def _next_outcome(self, request: Request) -> Part | Fault:
        try:
            async with asyncio.timeout_at(_loop_time(request.deadline)):
                outcome = await request.outcomes.get()
        except TimeoutError:
            return expired()
        assert isinstance(outcome, Part | Fault)
        return outcome

    async def _find_room(self, request: Request, *, wait: bool) -> None:
        limit = self._room_for(request.priority)
        if request.tokens > limit:
            raise admission.too_large(request.tokens, limit=limit)
        if self._dispatcher.refusal is None and request.priority is Priority.INTERACTIVE and not wait:
            self._refuse_long_wait(request.tokens, deadline=request.deadline, slack=_SLACK)
        if not wait:
            if self._dispatcher.refusal is None and self.queued_tokens + request.tokens > limit:
                raise self._full(request.tokens, limit, waiting=self.queued_tokens)
            return
        try:
            # One at a time, in the order they came: else a large request would wait for as long as small ones come. It
            # waits for its own class alone, or the other one might keep it out for ever, and with it all behind it.
            async with asyncio.timeout_at(_loop_time(request.deadline)), self._first_to_wait[request.priority]:
                while (
                    self._dispatcher.refusal is None
                    and self.queued_tokens + request.tokens > limit
                    and self.queued_tokens_of(request.priority)
                ):
                    room = asyncio.get_running_loop().create_future()
                    self._room.append(room)
                    await room
        except TimeoutError:
            raise expired() from None

    def _refuse_long_wait(
        self,
        tokens: int,
        *,
        deadline: float | None,
        slack: float = 1.0,
        behind: Sequence[int] = (),
        at_least: float = 0.0,
    ) -> None:
        """Raises ResourceExhausted for interactive work that would wait longer than `slack` times what is allowed, or
        than its deadline. `behind`: tokens of each request that will be in the queue before it, and is not there yet;
        `at_least`: seconds that it waits for something else meanwhile."""
        limit = self._limits.max_wait_seconds * slack
        if deadline is not None:
            limit = min(limit, max(0.0, deadline - time.monotonic()))
        if limit == float("inf"):
            return
        rate = self._dispatcher.tokens_per_second
        ahead = self._queue.of_class(Priority.INTERACTIVE)
        wait = admission.expected_wait_seconds(
            tokens,
            # Whole, though of some a part is done: while there are so many, others will have come in their place.
            [*(request.tokens for request in ahead), *behind],
            turn_tokens=rate * self._limits.batch_seconds,
            tokens_per_second=rate,
            busy_seconds=self._dispatcher.interactive_seconds,
        )
        wait = max(wait, at_least)
        if wait > limit:
            waiting = sum(request.waiting_tokens for request in ahead) + sum(behind)
            raise admission.wait_too_long(tokens, wait=wait, limit=limit, waiting=waiting, tokens_per_second=rate)

    def _room_for(self, priority: Priority) -> int:
        """Tokens that may wait in all before work of this class finds no room."""
        share = self._limits.bulk_share if priority is Priority.BULK else 1.0
        return int(self._limits.max_queued_tokens * share)

    def _full(self, tokens: int, limit: int, *, waiting: int) -> Fault:
        return admission.queue_full(
            tokens,
            waiting=waiting,
            limit=limit,
            tokens_per_second=self._dispatcher.tokens_per_second,
        )

    def _wake_room(self) -> None:
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)


def _loop_time(deadline: float | None) -> float | None:
    """A time of `time.monotonic()` on the clock of the running loop."""
    return None if deadline is None else deadline - time.monotonic() + asyncio.get_running_loop().time()
