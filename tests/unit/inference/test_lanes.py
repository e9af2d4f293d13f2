"""Lanes: who runs where, and what makes way for whom."""

import asyncio
import threading

import pytest

from tests.unit.inference.fakes import FakeEngine
from tests.unit.inference.running import run, running, settle, start, until
from winnow_inference.engines.base import Lanes
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.queueing import Priority

BULK = Priority.BULK
LIMITS = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000)
EXPRESS = Lanes(count=2, express=True)
"""Lanes 0 and 1 are common, 2 and 3 express."""


def assert_true(value: bool) -> None:
    assert value


async def test_a_query_starts_at_once_while_bulk_work_has_every_common_lane() -> None:
    engine = FakeEngine(EXPRESS)
    engine.hold(0, 1)
    async with running(engine, LIMITS) as runner:
        bulk = start(runner, *range(100, 160), priority=BULK)
        await until(lambda: len(engine.on(0, 1)) == 2)
        assert await asyncio.wait_for(run(runner, 7), 2) == [7]
        assert engine.on(2, 3) == [[7]]
        engine.release(0, 1)
        assert sorted(await bulk) == list(range(100, 160))
    assert not any(first >= 100 for batch in engine.on(2, 3) for first in batch)


async def test_queries_share_the_express_lanes_and_leave_the_common_ones_alone() -> None:
    engine = FakeEngine(EXPRESS)
    engine.hold(2, 3)
    async with running(engine, LIMITS) as runner:
        queries = [start(runner, 1)]
        await until(lambda: len(engine.ran) == 1)
        queries.append(start(runner, 2))
        await until(lambda: len(engine.ran) == 2)
        queries += [start(runner, 3), start(runner, 4)]
        await settle()
        assert engine.on(0, 1) == []
        engine.release(2, 3)
        assert await asyncio.gather(*queries) == [[1], [2], [3], [4]]
    assert sorted(map(sorted, engine.on(2, 3))) == [[1], [2], [3, 4]]


async def test_bulk_work_does_not_begin_while_queries_have_every_express_lane() -> None:
    engine = FakeEngine(EXPRESS)
    engine.hold(2, 3)
    async with running(engine, LIMITS) as runner:
        queries = [start(runner, 1)]
        await until(lambda: len(engine.ran) == 1)
        queries.append(start(runner, 2))
        await until(lambda: len(engine.ran) == 2)
        bulk = start(runner, 100, priority=BULK)
        await asyncio.sleep(0.05)
        assert engine.on(0, 1) == []
        engine.release(2)
        assert await asyncio.wait_for(bulk, 2) == [100]
        engine.release(3)
        await asyncio.gather(*queries)


async def test_bulk_work_begins_all_the_same_once_it_is_overdue() -> None:
    engine = FakeEngine(EXPRESS)
    engine.hold(2, 3)
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000, bulk_patience_seconds=0.0)
    async with running(engine, limits) as runner:
        queries = [start(runner, 1)]
        await until(lambda: len(engine.ran) == 1)
        queries.append(start(runner, 2))
        await until(lambda: len(engine.ran) == 2)
        assert await asyncio.wait_for(run(runner, 100, priority=BULK), 2) == [100]
        engine.release(2, 3)
        await asyncio.gather(*queries)


async def test_without_express_lanes_bulk_work_that_lies_ready_is_taken_back_for_a_query() -> None:
    engine = FakeEngine(Lanes(count=2))
    engine.hold(0, 1)
    async with running(engine, LIMITS) as runner:
        bulk = start(runner, *range(100, 160), priority=BULK)
        await until(lambda: len(engine.ran) == 2)
        await settle()  # two more batches lie ready
        query = start(runner, 7)
        await settle()
        engine.release(0)
        assert await asyncio.wait_for(query, 2) == [7]
        assert engine.on(0)[1] == [7]
        engine.release(1)
        assert sorted(await bulk) == list(range(100, 160))
    computed = sorted(first for batch in engine.batches for first in batch)
    assert computed == [7, *range(100, 160)], "something was computed twice, or not at all"


async def test_with_express_lanes_bulk_work_that_lies_ready_stays() -> None:
    engine = FakeEngine(Lanes(count=1, express=True))
    engine.hold(0)
    # Before anything is measured ten tokens are taken to cost 2 ms: one sequence a batch.
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000, batch_seconds=0.0025)
    async with running(engine, limits) as runner:
        bulk = start(runner, 100, 101, priority=BULK)
        await until(lambda: len(engine.ran) == 1)
        await settle()
        assert await run(runner, 7) == [7]
        engine.release(0)
        await bulk
    assert engine.on(0) == [[100], [101]]


async def test_bulk_work_gets_its_turn_though_a_query_arrives_whenever_it_lies_ready() -> None:
    engine = FakeEngine()
    permits = threading.Semaphore(0)
    engine.fail = lambda batch: assert_true(permits.acquire(timeout=10))
    limits = RunnerLimits(max_batch_tokens=10, max_queued_tokens=10_000, bulk_patience_seconds=0.1)
    async with running(engine, limits) as runner:
        tasks = [start(runner, 1)]
        await until(lambda: len(engine.ran) == 1)
        tasks.append(start(runner, 100, priority=BULK))
        async with asyncio.timeout(5):
            while not any(100 in batch for batch in engine.batches):
                await settle()  # bulk work lies ready by now, since nothing else waits
                tasks.append(start(runner, 2))
                await settle()
                reached = len(engine.ran)
                permits.release()
                await until(lambda reached=reached: len(engine.ran) > reached)  # type: ignore[misc]
        permits.release(len(tasks))
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("lanes", [Lanes(), Lanes(count=1, express=True)])
async def test_a_batch_that_lies_ready_half_empty_is_formed_anew_when_more_arrives(lanes: Lanes) -> None:
    engine = FakeEngine(lanes)
    engine.gate.clear()
    async with running(engine, LIMITS) as runner:
        first = start(runner, 1)
        await until(lambda: len(engine.ran) == 1)
        others = []
        for at in (2, 3, 4):
            others.append(start(runner, at))
            await settle()
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert [sorted(batch) for batch in engine.batches] == [[1], [2, 3, 4]]


async def test_a_batch_that_lies_ready_more_than_half_full_stays_as_it_is() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    # Before anything is measured ten tokens are taken to cost 2 ms: two sequences a batch.
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000, batch_seconds=0.0035)
    async with running(engine, limits) as runner:
        first = start(runner, 1)
        await until(lambda: len(engine.ran) == 1)
        second = start(runner, 2)
        await settle()
        third = start(runner, 3)
        await settle()
        engine.gate.set()
        await asyncio.gather(first, second, third)
    assert engine.batches[:2] == [[1], [2]]


async def test_a_batch_that_lies_ready_goes_on_for_those_who_stay() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine, LIMITS) as runner:
        first = start(runner, 1)
        await until(lambda: len(engine.ran) == 1)
        gone, stays = start(runner, 2), start(runner, 3)
        await settle()
        assert runner.queued_tokens == 20
        gone.cancel()
        await settle()
        engine.gate.set()
        assert await asyncio.gather(first, stays) == [[1], [3]]
        assert runner.queued_tokens == 0
    assert gone.cancelled()


async def test_work_that_lies_ready_and_that_nobody_wants_any_more_is_dropped() -> None:
    engine = FakeEngine(EXPRESS)
    engine.gate.clear()
    async with running(engine, LIMITS) as runner:
        bulk = [start(runner, *range(at, at + 30), priority=BULK) for at in (100, 200)]
        await until(lambda: len(engine.on(0, 1)) == 2)
        await settle()
        for task in bulk:
            task.cancel()
        await settle()
        assert runner.queued_tokens == 0
        engine.gate.set()
        assert await run(runner, 7) == [7]
    assert len(engine.on(0, 1)) == 2
