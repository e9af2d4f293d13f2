import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from tests.unit.inference.fakes import FakeEngine, sequence
from tests.unit.inference.running import LIMITS, run, running, settle, until, would_be_taken
from winnow_inference.engines.base import EngineLost, Lanes
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.scheduling.runner import Runner
from winnow_inference.sequences import TokenSequence
from winnow_rpc.faults import DeadlineExceeded, Fault, Internal, ResourceExhausted, Unavailable


@contextlib.asynccontextmanager
async def busy(engine: FakeEngine, runner: Runner) -> AsyncIterator[None]:
    """While in here the device is busy with a batch of somebody else."""
    engine.gate.clear()
    blocker = asyncio.create_task(runner.run([sequence(-1)], priority=Priority.INTERACTIVE))
    await asyncio.to_thread(engine.began.acquire)
    try:
        yield
    finally:
        engine.gate.set()
        with contextlib.suppress(Fault):
            await blocker


async def test_results_come_in_the_order_of_the_request_whatever_the_order_of_the_batches() -> None:
    lengths = [3, 90, 17, 55, 3, 41, 90, 8] * 5
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000)
    async with running(FakeEngine(), limits) as runner:
        answer = await runner.run(
            [sequence(at + 1, length) for at, length in enumerate(lengths)], priority=Priority.INTERACTIVE
        )
    assert answer.rows[:, 0].tolist() == list(range(1, 41))
    assert answer.rows[:, 1].tolist() == lengths


async def test_requests_that_wait_share_a_batch() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            others = [asyncio.create_task(run(runner, first)) for first in (1, 2, 3)]
            await settle()
        assert await asyncio.gather(*others) == [[1], [2], [3]]
    assert [sorted(batch) for batch in engine.batches] == [[-1], [1, 2, 3]]


async def test_interactive_work_overtakes_bulk_work() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            bulk = asyncio.create_task(run(runner, *range(100, 120), priority=Priority.BULK))
            await settle()
            query = asyncio.create_task(run(runner, 7))
            await settle()
        await asyncio.gather(bulk, query)
    assert engine.batches[1] == [7]


async def test_bulk_work_that_was_passed_over_for_long_gets_its_turn() -> None:
    engine = FakeEngine()
    limits = RunnerLimits(max_batch_tokens=10, max_queued_tokens=1000, bulk_patience_seconds=0.0)
    async with running(engine, limits) as runner:
        async with busy(engine, runner):
            bulk = asyncio.create_task(run(runner, 100, 101, priority=Priority.BULK))
            queries = [asyncio.create_task(run(runner, first)) for first in range(1, 5)]
            await settle()
        await asyncio.gather(bulk, *queries)
    assert 100 in engine.batches[1] or 101 in engine.batches[1]


async def test_a_long_request_does_not_hold_up_those_behind_it() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            long = asyncio.create_task(run(runner, *range(100, 120), length=40))
            await settle()
            short = asyncio.create_task(run(runner, 7, length=5))
            await settle()
        await asyncio.gather(long, short)
    assert any(7 in batch for batch in engine.batches[1:3])


async def test_a_stream_gives_the_first_sequences_first_and_each_once() -> None:
    engine = FakeEngine()
    lengths = [30, 5, 60, 20, 90, 5, 5, 40]
    async with running(engine) as runner:
        parts = [
            part
            async for part in runner.stream(
                [sequence(at, length) for at, length in enumerate(lengths)], priority=Priority.INTERACTIVE
            )
        ]
    order = [index for part in parts for index in part.indexes]
    assert sorted(order) == list(range(8))
    assert all(part.indexes == sorted(part.indexes) for part in parts)
    # Within what fits one batch the shorter may go first, never across that.
    assert max(parts[0].indexes) < 3
    assert parts[-1].indexes[-1] == 7


async def test_a_closed_stream_drops_what_has_not_begun() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        stream = runner.stream([sequence(first, 100) for first in range(9)], priority=Priority.INTERACTIVE)
        await anext(stream)
        await stream.aclose()
        assert runner.queued_tokens == 0
        await run(runner, 50)
    assert len(engine.batches) <= 3  # one answered, at most one more on the device, and the later request


async def test_a_cancelled_request_never_reaches_the_device() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            task = asyncio.create_task(run(runner, 1, 2, 3))
            await settle()
            assert runner.queued_tokens == 30
            task.cancel()
            await settle()
            assert runner.queued_tokens == 0
        await run(runner, 50)
    assert task.cancelled()
    assert engine.batches == [[-1], [50]]


async def test_expired_work_is_dropped_and_its_caller_told_at_once() -> None:
    engine = FakeEngine()
    async with running(engine) as runner, busy(engine, runner):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await runner.run([sequence(1)], priority=Priority.INTERACTIVE, deadline=began + 0.05)
        assert time.monotonic() - began < 1  # while the device is still busy
        assert runner.queued_tokens == 0
    assert engine.batches == [[-1]]


async def test_a_deadline_in_the_past_is_refused_without_work() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        with pytest.raises(DeadlineExceeded):
            await runner.run([sequence(1)], priority=Priority.INTERACTIVE, deadline=time.monotonic() - 1)
    assert engine.batches == []


async def test_a_full_queue_refuses_whole_requests_at_once_and_says_when_to_come_back() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            waiting = asyncio.create_task(run(runner, *range(95)))
            await settle()
            with pytest.raises(ResourceExhausted) as refused:
                await run(runner, *range(6))
            assert refused.value.reason == "QUEUE_FULL"
            assert refused.value.retry_after is not None
            fits = asyncio.create_task(run(runner, *range(5)))
            await settle()
            with pytest.raises(ResourceExhausted):
                would_be_taken(runner, Priority.INTERACTIVE, 0)
        await asyncio.gather(waiting, fits)
        would_be_taken(runner, Priority.INTERACTIVE, 0)


async def test_a_request_that_could_never_fit_is_refused_without_a_hint_to_come_back() -> None:
    async with running(FakeEngine()) as runner:
        with pytest.raises(ResourceExhausted) as refused:
            await run(runner, *range(101))
    assert refused.value.reason == "REQUEST_TOO_LARGE"
    assert refused.value.retry_after is None


async def test_bulk_work_leaves_room_for_a_query() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            bulk = asyncio.create_task(run(runner, *range(75), priority=Priority.BULK))
            await settle()
            with pytest.raises(ResourceExhausted):
                await run(runner, 1, priority=Priority.BULK)
            query = asyncio.create_task(run(runner, 7))
            await settle()
        assert await query == [7]
        await bulk


async def test_a_stream_of_bulk_work_waits_for_room_instead() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:

        async def bulk(first: int) -> float:
            answer = await runner.run([sequence(first)] * 50, priority=Priority.BULK, wait_for_room=True)
            return float(answer.rows[0, 0])

        async with busy(engine, runner):
            tasks = [asyncio.create_task(bulk(first)) for first in range(1, 5)]
            await settle()
            assert runner.queued_tokens == 500
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4]


async def test_a_large_request_gets_room_before_small_ones_that_came_after_it() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:

        def bulk(first: int, count: int) -> asyncio.Task[object]:
            work = runner.run([sequence(first)] * count, priority=Priority.BULK, wait_for_room=True)
            return asyncio.create_task(work)

        async with busy(engine, runner):
            tasks = [bulk(1, 70)]
            await settle()
            tasks.append(bulk(2, 70))
            await settle()
            small = [bulk(first, 1) for first in range(3, 8)]
            await settle()
            assert runner.queued_tokens == 700
            # Those that are given up leave their places.
            small[0].cancel()
        await asyncio.gather(*tasks, *small[1:])
        with pytest.raises(asyncio.CancelledError):
            await small[0]
    assert [2 in batch for batch in engine.batches].index(True) <= [4 in batch for batch in engine.batches].index(True)


async def test_queries_that_keep_the_queue_full_keep_no_bulk_work_out_for_ever_neither_large_nor_small() -> None:
    """Lane 0 is for both, lane 1 for queries alone, and held, so that 400 tokens of queries wait all the time."""
    engine = FakeEngine(Lanes(express=True))
    engine.hold(0, 1)
    # Bulk work is always overdue.
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=1000, bulk_patience_seconds=-1.0)
    async with running(engine, limits) as runner:

        def bulk(first: int, count: int) -> asyncio.Task[object]:
            work = runner.run([sequence(first)] * count, priority=Priority.BULK, wait_for_room=True)
            return asyncio.create_task(work)

        query = asyncio.create_task(run(runner, -1))
        await until(lambda: engine.on(1) == [[-1]])
        queries = asyncio.create_task(run(runner, *range(1000, 1040)))
        await settle()
        # One that runs, and one that is behind it; the large one does not fit beside queries, those after it would.
        tasks = [bulk(1, 1)]
        await until(lambda: engine.on(0) == [[1]])
        tasks.append(bulk(2, 1))
        await settle()
        tasks += [bulk(3, 70), *(bulk(first, 1) for first in range(4, 8))]
        await settle()
        assert runner.queued_tokens_of(Priority.BULK) == 10
        engine.release(0)
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
        assert runner.queued_tokens == runner.queued_tokens_of(Priority.INTERACTIVE) == 400
        engine.release(1)
        await asyncio.gather(query, queries)
    assert [first for firsts in engine.on(0) for first in firsts if first < 4] == [1, 2, *[3] * 70]
    assert min(at for at, firsts in enumerate(engine.on(0)) if 4 in firsts) > min(
        at for at, firsts in enumerate(engine.on(0)) if 3 in firsts
    )


async def test_bulk_work_that_does_not_wait_for_queries_leaves_them_their_share_of_the_queue() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:

        def bulk(count: int) -> asyncio.Task[object]:
            work = runner.run([sequence(1)] * count, priority=Priority.BULK, wait_for_room=True)
            return asyncio.create_task(work)

        async with busy(engine, runner):
            queries = [asyncio.create_task(run(runner, *range(count))) for count in (24, 20)]
            await settle()
            tasks = [bulk(75)]
            await settle()
            tasks.append(bulk(1))
            await settle()
            assert runner.queued_tokens == 440 + 750, "only the first one goes in beside them"
            with pytest.raises(ResourceExhausted):
                await run(runner, 7)
            queries.pop().cancel()
            await settle()
            queries.append(asyncio.create_task(run(runner, 7)))
            await settle()
            assert runner.queued_tokens == 250 + 750
        await asyncio.gather(*queries, *tasks)


async def test_a_request_whose_deadline_passes_while_it_waits_for_room_is_told_so() -> None:
    engine = FakeEngine()
    async with running(engine) as runner:
        async with busy(engine, runner):
            first = asyncio.create_task(run(runner, *range(75), priority=Priority.BULK))
            await settle()
            for _ in range(2):
                with pytest.raises(DeadlineExceeded):
                    await runner.run(
                        [sequence(1)], priority=Priority.BULK, wait_for_room=True, deadline=time.monotonic() + 0.01
                    )
        await first


async def test_a_text_on_which_the_model_fails_fails_only_its_own_request() -> None:
    engine = FakeEngine()

    def fail(batch: Sequence[TokenSequence]) -> None:
        if any(one.ids[0] == 13 for one in batch):
            raise ValueError("13")

    engine.fail = fail
    async with running(engine) as runner:
        async with busy(engine, runner):
            tasks = [asyncio.create_task(run(runner, first)) for first in range(10, 17)]
            await settle()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[3], Internal)
    assert results[3].reason == "INFERENCE_FAILED"
    assert "13" not in results[3].message
    assert [result for result in results if isinstance(result, list)] == [[10], [11], [12], [14], [15], [16]]


async def test_numbers_that_are_not_finite_fail_only_their_own_request() -> None:
    class Overflowing(FakeEngine):
        def run(self, prepared: Sequence[TokenSequence], lane: int) -> np.ndarray:
            rows = super().run(prepared, lane)
            rows[[one.ids[0] == 13 for one in prepared], 1] = np.nan
            return rows

    engine = Overflowing()
    async with running(engine) as runner:
        async with busy(engine, runner):
            good, bad = asyncio.create_task(run(runner, 12)), asyncio.create_task(run(runner, 13))
            await settle()
        assert await good == [12]
        with pytest.raises(Internal):
            await bad


async def test_a_wrong_number_of_results_is_a_failure_not_a_mixup() -> None:
    class Short(FakeEngine):
        def run(self, prepared: Sequence[TokenSequence], lane: int) -> np.ndarray:
            return super().run(prepared, lane)[:-1]

    async with running(Short()) as runner:
        with pytest.raises(Internal):
            await run(runner, 1, 2)


@pytest.mark.parametrize("death", [EngineLost("the device is gone"), SystemExit(1)])
async def test_a_dead_worker_fails_everyone_at_once_and_comes_back(death: BaseException) -> None:
    engines: list[FakeEngine] = []

    def make() -> FakeEngine:
        engine = FakeEngine()
        engines.append(engine)
        return engine

    runner = Runner(make, LIMITS)
    await runner.start()
    try:
        first = engines[0]

        def die(batch: Sequence[TokenSequence]) -> None:
            raise death

        first.fail = die
        first.gate.clear()
        on_device = asyncio.create_task(run(runner, 1))
        await asyncio.to_thread(first.began.acquire)
        waiting = [asyncio.create_task(run(runner, at)) for at in (2, 3)]
        await settle()
        first.gate.set()
        results = await asyncio.wait_for(asyncio.gather(on_device, *waiting, return_exceptions=True), 1)
        assert all(isinstance(result, Unavailable) and result.reason == "ENGINE_LOST" for result in results)
        with pytest.raises(Unavailable):
            await runner.probe()

        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(Unavailable):
                    await runner.probe()
                    break
                await asyncio.sleep(0.01)
        assert await run(runner, 4) == [4]
        # The lane closes it by itself, after its callers have been told, and before there is another.
        assert first.closed
        assert len(engines) == 2
    finally:
        await runner.close()


async def test_a_worker_that_dies_while_a_failing_batch_is_halved_leaves_nobody_waiting() -> None:
    engine = FakeEngine()

    def fail(batch: Sequence[TokenSequence]) -> None:
        raise ValueError("too many") if len(batch) > 1 else EngineLost("gone")

    async with running(engine) as runner:
        async with busy(engine, runner):
            engine.fail = fail
            tasks = [asyncio.create_task(run(runner, first)) for first in range(1, 9)]
            await settle()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
    assert all(isinstance(result, Unavailable) for result in results)


async def test_an_engine_that_cannot_be_made_says_so_at_start() -> None:
    def make() -> FakeEngine:
        raise Unavailable("no device", reason="DEVICE_NOT_FOUND")

    with pytest.raises(Unavailable, match="no device"):
        await Runner(make, LIMITS).start()


async def test_closing_fails_what_waits_and_closes_the_engine() -> None:
    engine = FakeEngine()
    runner = Runner(lambda: engine, LIMITS)
    await runner.start()
    engine.gate.clear()
    on_device = asyncio.create_task(run(runner, 1))
    await asyncio.to_thread(engine.began.acquire)
    waiting = asyncio.create_task(run(runner, 2))
    await settle()
    closing = asyncio.create_task(runner.close())
    results = await asyncio.wait_for(asyncio.gather(on_device, waiting, return_exceptions=True), 1)
    engine.gate.set()
    await closing
    assert all(isinstance(result, Unavailable) and result.reason == "STOPPING" for result in results)
    assert engine.closed
    with pytest.raises(Unavailable):
        await run(runner, 3)


async def test_a_thousand_callers_each_get_their_own_answer_once() -> None:
    engine = FakeEngine()

    def fail(batch: Sequence[TokenSequence]) -> None:
        if any(one.ids[0] % 331 == 13 for one in batch):
            raise ValueError

    engine.fail = fail
    limits = RunnerLimits(max_batch_tokens=500, max_queued_tokens=100_000)
    async with running(engine, limits) as runner:
        async with busy(engine, runner):
            tasks = [
                asyncio.create_task(
                    run(
                        runner,
                        first,
                        length=1 + first % 60,
                        priority=Priority.BULK if first % 3 else Priority.INTERACTIVE,
                    )
                )
                for first in range(1000)
            ]
            await settle()
            for task in tasks[::7]:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert runner.queued_tokens == 0
    for first, result in enumerate(results):
        if first % 7 == 0:
            assert isinstance(result, asyncio.CancelledError)
        elif first % 331 == 13:
            assert isinstance(result, Internal)
        else:
            assert result == [first]
