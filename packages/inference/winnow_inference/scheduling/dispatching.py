"""Takes batches out of the queue, runs them on the lanes of an engine, and gives each request what is its own.

Who goes first: interactive work. On an engine with express lanes it has those for itself, and bulk work gets no new
batch while all of them are busy; on any other, both classes share the lanes, and bulk batches that have not begun are
taken back when interactive work arrives. Bulk work that was passed over for too long gets one batch, whatever else
waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from winnow_inference.engines.base import Engine
from winnow_inference.scheduling.costs import CostModel
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.observing import Batch, Observer
from winnow_inference.scheduling.parts import Part
from winnow_inference.scheduling.queueing import Item, Priority, Queue, Request
from winnow_inference.scheduling.worker import Computed, Crew, Job, Recalled, Worker, WorkerDied
from winnow_inference.sequences import TokenSequence
from winnow_rpc import telemetry
from winnow_rpc.deferring import soon
from winnow_rpc.faults import DeadlineExceeded, Fault, Internal, Unavailable

log = telemetry.get_logger("winnow.inference")

_FIRST_RESTART_SECONDS = 0.1
_LONGEST_RESTART_SECONDS = 30.0
# A batch that lies ready and is not even half full is formed anew when more arrives.
_HALF_FULL = 0.5
# A lane has one batch running and one that lies ready.
_BATCHES_PER_LANE = 2


class Dispatcher:
    """Owns the engine's crew. Everything but the engine's work happens on the event loop."""

    def __init__(self, make_engine: Callable[[], Engine], queue: Queue, costs: CostModel, limits: RunnerLimits) -> None:
        self._make_engine = make_engine
        self._queue = queue
        self._costs = costs
        self._limits = limits
        self._crew: Crew | None = None
        self._batches: dict[Job, Sequence[Item]] = {}
        self._work = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lane_tokens_per_second = 0.0
        self._taken: Callable[[], None] = lambda: None
        self._batch_number = 0
        self.observer = Observer()
        """Is told of every batch."""
        self.refusal: Callable[[], Fault] | None = lambda: Unavailable("not started", reason="NOT_STARTED")
        """Makes the fault with which everything is refused at the moment; None: nothing is."""

    @property
    def engine(self) -> Engine:
        """The engine, once started; its `run` is not for others."""
        assert self._crew is not None, "not started"
        return self._crew.engine

    @property
    def tokens_per_second(self) -> float:
        """Measured rate of all lanes together, padding not counted; 0: nothing was measured yet."""
        return self._lane_tokens_per_second * self.engine.lanes.count

    @property
    def interactive_seconds(self) -> float:
        """Expected time of the interactive work on the lane that has least of it."""
        assert self._crew is not None, "not started"
        return min(
            sum(
                self._expected(items)
                for job in worker.pending
                if (items := self._batches.get(job)) and items[0].request.priority is Priority.INTERACTIVE
            )
            for worker in self._crew.express or self._crew.common
        )

    async def start(self, *, on_taken: Callable[[], None]) -> None:
        """Makes the engine, raises what that raised, and begins. `on_taken` is called whenever the queue has shrunk."""
        self._taken = on_taken
        await self._start_crew()
        self._driver = asyncio.create_task(self._drive(), name="inference dispatcher")

    async def close(self, refusal: Callable[[], Fault]) -> None:
        """Fails everything that waits or runs, lets the batches on the device end, and releases the engine."""
        self.refusal = refusal
        if self._driver:
            self._driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._driver
        self.fail_all(refusal)
        # First these: a restart among them would make an engine that nobody closes, and open for business again.
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._crew:
            await self._crew.stop()

    @property
    def ready_tokens(self) -> int:
        """Tokens of the batches that lie ready on the lanes and have not begun."""
        return sum(len(item.sequence) for job, items in self._batches.items() if job.began is None for item in items)

    def ready_tokens_of(self, priority: Priority) -> int:
        """Those of them that are of a class."""
        return sum(
            len(item.sequence)
            for job, items in self._batches.items()
            if job.began is None and items[0].request.priority is priority
            for item in items
        )

    def ready_requests_of(self, priority: Priority) -> set[Request]:
        """The requests of a class that have something in those batches."""
        return {
            item.request
            for job, items in self._batches.items()
            if job.began is None and items[0].request.priority is priority
            for item in items
        }

    def arrived(self, request: Request) -> None:
        """Says that a request has come into the queue. Batches that have not begun and would be other ones with it are
        taken back: bulk ones that it overtakes, and those of its class that have room for it."""
        for worker in self._crew.workers if self._crew else ():
            for job in [job for job in worker.pending if job.began is None]:
                if self._makes_way(job, request) and worker.recall(job):
                    self._queue.put_back(self._batches.pop(job), passed_over_since=job.passed_over_since)
        self._work.set()

    def departed(self, request: Request) -> None:
        """Says that a request has ended, so that what lies ready for it alone is dropped."""
        for worker in self._crew.workers if self._crew else ():
            for job in [job for job in worker.pending if job.began is None]:
                requests = {item.request for item in self._batches[job]}
                if request in requests and all(other.closed for other in requests) and worker.recall(job):
                    del self._batches[job]
        self._work.set()

    def end(self, request: Request, fault: Fault) -> None:
        """Ends a request with a fault, once; what it still has waiting is dropped."""
        if request.closed:
            return
        request.closed = True
        self._queue.withdraw(request)
        request.outcomes.put_nowait(fault)

    def fail_all(self, fault: Callable[[], Fault]) -> None:
        """Ends every request that waits or runs."""
        running = {item.request for items in self._batches.values() for item in items}
        for request in {*self._queue.requests(), *running}:
            self.end(request, fault())
        self._taken()

    def check_progress(self) -> None:
        """Raises Unavailable if a lane has been at one batch for so long that it must be stuck."""
        now = time.monotonic()
        for worker in self._crew.workers if self._crew else ():
            began = worker.pending[0].began if worker.pending else None
            if began is not None and now - began > self._limits.stuck_seconds:
                raise Unavailable(
                    f"a batch has been on the device for {now - began:.0f} s", reason="ENGINE_STUCK", retry_after=5.0
                )

    async def _drive(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                self._fill_lanes(time.monotonic())
            except Exception as error:  # a mistake of ours must not leave callers waiting
                log.error("inference dispatcher failed", exc_info=error)
                self.fail_all(lambda: Internal("the batch could not be handled", reason="INFERENCE_FAILED"))

    def _fill_lanes(self, now: float) -> None:
        for request in self._queue.expired(now):
            self.end(request, expired())
        assert self._crew is not None
        self._even_out(self._crew)
        # Idle lanes first, then the second place of busy ones.
        for depth in range(_BATCHES_PER_LANE):
            for worker in self._crew.workers:
                if len(worker.pending) != depth or not (priority := self._priority_for(worker, now)):
                    continue
                since = now - self._queue.passed_over_seconds(priority, now)
                self._send(worker, self._queue.next_batch(priority, now), passed_over_since=since)
        self._taken()

    def _even_out(self, crew: Crew) -> None:
        """What lies ready behind a running batch goes back where another lane has nothing to do."""
        for lanes in (crew.common, crew.express):
            idle = sum(not worker.pending for worker in lanes)
            for worker in lanes:
                for job in [job for job in worker.pending if idle and job.began is None]:
                    if worker.recall(job):
                        self._queue.put_back(self._batches.pop(job), passed_over_since=job.passed_over_since)
                        idle -= 1

    def _priority_for(self, worker: Worker, now: float) -> Priority | None:
        """Whose turn it is on a lane; None: nobody's."""
        assert self._crew is not None
        interactive = bool(self._queue.of_class(Priority.INTERACTIVE))
        bulk = bool(self._queue.of_class(Priority.BULK))
        overdue = self._queue.passed_over_seconds(Priority.BULK, now) > self._limits.bulk_patience_seconds
        if worker in self._crew.express:
            return Priority.INTERACTIVE if interactive else None
        if self._crew.express:
            busy = sum(bool(other.pending) for other in self._crew.express)
            return Priority.BULK if bulk and (overdue or busy < len(self._crew.express)) else None
        if bulk and (overdue or not interactive):
            return Priority.BULK
        return Priority.INTERACTIVE if interactive else None

    def _makes_way(self, job: Job, newcomer: Request) -> bool:
        items = self._batches[job]
        priority = items[0].request.priority
        if priority is newcomer.priority:
            return self._expected(items) < _HALF_FULL * self._limits.batch_seconds
        assert self._crew is not None
        overdue = time.monotonic() - job.passed_over_since > self._limits.bulk_patience_seconds
        return priority is Priority.BULK and not self._crew.express and not overdue

    def _send(self, worker: Worker, items: Sequence[Item], *, passed_over_since: float) -> None:
        job = self._submit(worker, items)
        job.passed_over_since = passed_over_since
        task = asyncio.create_task(self._execute(worker, items, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _submit(self, worker: Worker, items: Sequence[Item]) -> Job:
        sequences = [item.sequence for item in items]
        requests = {item.request for item in items}
        job = Job(sequences, lambda: any(request.is_wanted(time.monotonic()) for request in requests))
        self._batches[job] = items
        try:
            job.prepared = self.engine.prepare(sequences)
        except Exception as error:  # as if the device had failed on it
            job.done.set_exception(error)
        else:
            worker.submit(job)
        return job

    async def _execute(self, worker: Worker, items: Sequence[Item], job: Job) -> None:
        """Waits for a batch and hands out its results; a failing one is halved until the culprit is alone."""
        try:
            computed = await job.done
        except Recalled:
            return  # back in the queue, or wanted by nobody
        except WorkerDied as death:
            await self._restart(worker, death)
            return
        except Exception as error:
            await self._halve(worker, [item for item in items if not item.request.closed], error)
            return
        finally:
            self._batches.pop(job, None)
            self._work.set()
        self._measure(items, computed)
        self._hand_out(items, job, computed, self._ended(worker, items, job, computed))

    async def _halve(self, worker: Worker, items: Sequence[Item], error: Exception) -> None:
        if len(items) == 1:
            log.error("inference failed", tokens=len(items[0].sequence), exc_info=error)
            self.end(items[0].request, Internal("the model failed on a text", reason="INFERENCE_FAILED"))
            return
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            if part:
                await self._execute(worker, part, self._submit(worker, part))

    def _ended(self, worker: Worker, items: Sequence[Item], job: Job, computed: Computed) -> Batch:
        self._batch_number += 1
        lengths = [len(item.sequence) for item in items]
        batch = Batch(
            number=self._batch_number,
            lane=worker.lane,
            priority=items[0].request.priority,
            texts=len(items),
            tokens=sum(lengths),
            padded_tokens=len(items) * max(lengths),
            began=job.began or time.monotonic() - computed.seconds,
            seconds=computed.seconds,
        )
        soon(self.observer.batch_ended, batch)
        return batch

    def _hand_out(self, items: Sequence[Item], job: Job, computed: Computed, batch: Batch) -> None:
        rows, micros = computed.rows, round(computed.seconds * 1e6)
        finite = np.logical_and.reduce(np.isfinite(rows), axis=1)
        shares: dict[Request, list[int]] = {}
        for position, item in enumerate(items):
            if finite[position]:
                shares.setdefault(item.request, []).append(position)
            else:
                self.end(item.request, Internal("the model gave no finite numbers for a text", reason="NOT_FINITE"))
        for request, positions in shares.items():
            if request.closed:
                continue
            is_first = request.began == float("inf")
            request.began = min(request.began, job.began or time.monotonic())
            if is_first:
                waited = max(0.0, request.began - request.admitted)
                soon(self.observer.request_began, request.priority, waited)
            positions.sort(key=lambda position: items[position].index)
            request.outcomes.put_nowait(
                Part(
                    indexes=[items[position].index for position in positions],
                    rows=rows[positions],
                    token_count=sum(len(items[position].sequence) for position in positions),
                    queue_micros=max(0, round((request.began - request.admitted) * 1e6)),
                    inference_micros=micros,
                    batch=batch,
                )
            )

    def _measure(self, items: Sequence[Item], computed: Computed) -> None:
        lengths = [len(item.sequence) for item in items]
        self._costs.observe(len(lengths), max(lengths), computed.seconds)
        rate = sum(lengths) / max(computed.seconds, 1e-6)
        known = self._lane_tokens_per_second
        # Batches of a slice's size tell the rate; those of one short query are nearly all fixed cost.
        share = 0.2 * min(1.0, computed.seconds / self._limits.batch_seconds)
        self._lane_tokens_per_second = known + share * (rate - known) if known else rate

    def _expected(self, items: Sequence[Item]) -> float:
        return self._costs.seconds(len(items), max(len(item.sequence) for item in items))

    async def _restart(self, worker: Worker, death: WorkerDied) -> None:
        """Fails everyone, then makes engines until one stands. Until then every request and probe is refused."""
        crew = self._crew
        if crew is None or worker not in crew.workers or self.refusal is not None:
            return  # another lane's death, or the end of all, is being dealt with
        log.error("inference worker died", error=str(death))
        self.refusal = lambda: Unavailable(
            "the model's worker died and is being restarted", reason="ENGINE_LOST", retry_after=1.0
        )
        self.fail_all(self.refusal)
        await crew.stop()
        pause = _FIRST_RESTART_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RESTART_SECONDS)
            try:
                await self._start_crew()
            except Exception as error:
                log.error("inference worker does not start", error=f"{type(error).__name__}: {error}")
            else:
                log.info("inference worker restarted")
                self.observer.engine_restarted()
                self._work.set()
                return

    async def _start_crew(self) -> None:
        crew = Crew(self._make_engine)
        try:
            await crew.start()
            await self._warm_up(crew)
        except WorkerDied as death:
            await crew.stop()
            raise Unavailable(f"the model's worker died as it started: {death}", reason="ENGINE_LOST") from death
        except BaseException:
            await crew.stop()
            raise
        self._crew = crew
        self.refusal = None

    async def _warm_up(self, crew: Crew) -> None:
        """Lets every lane compute what it will meet, twice, and learns from the second time what it costs."""
        for length in self._limits.warm_up_lengths:
            batch = [TokenSequence.blank(length)]
            for worker in crew.workers:
                for again in (False, True):
                    job = Job(batch, lambda: True)
                    job.prepared = crew.engine.prepare(batch)
                    worker.submit(job)
                    computed = await job.done
                    if again:
                        self._costs.observe(1, length, computed.seconds)
                        self._lane_tokens_per_second = length / max(computed.seconds, 1e-6)


def expired() -> DeadlineExceeded:
    """The fault of a request whose deadline has passed."""
    return DeadlineExceeded("the deadline passed before all was computed", reason="DEADLINE_EXCEEDED")
