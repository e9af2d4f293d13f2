"""Who is sent away because it would wait too long, or finds no room."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.unit.inference.fakes import FakeEngine, sequence
from tests.unit.inference.running import run, running, settle, start, until, would_be_taken
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.scheduling.runner import Runner
from winnow_rpc.faults import ResourceExhausted

BULK, INTERACTIVE = Priority.BULK, Priority.INTERACTIVE
SLOW = RunnerLimits(
    max_batch_tokens=1000, max_queued_tokens=10_000, max_wait_seconds=0.5, warm_up_lengths=(8,), batch_seconds=0.025
)


@contextlib.asynccontextmanager
async def crowded(engine: FakeEngine, waiting: int) -> AsyncIterator[Runner]:
    """A runner that computes a token a millisecond, and `waiting` tokens of one query before everybody."""
    engine.seconds_per_token = 1e-3
    async with running(engine, SLOW) as runner:
        engine.gate.clear()
        tasks = [start(runner, 1)]
        await until(lambda: engine.ran[-1][1] == [1])
        tasks.append(start(runner, *range(waiting // 10)))
        await settle()
        try:
            yield runner
        finally:
            for task in tasks:
                task.cancel()
            engine.seconds_per_token = 0.0
            engine.gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_query_that_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back() -> None:
    async with crowded(FakeEngine(), 3000) as runner:
        began = time.monotonic()
        with pytest.raises(ResourceExhausted) as refused:
            await run(runner, *range(200))  # 2 s behind as much as it brings itself
        assert time.monotonic() - began < 2  # it would wait for the gate for ever
        assert refused.value.reason == "WAIT_TOO_LONG"
        assert refused.value.retry_after is not None
        assert int(refused.value.metadata["expected_wait_micros"]) > 500_000
        short = start(runner, 7)  # it takes turns with the long one
        bulk = start(runner, *range(200), priority=BULK)
        await settle()
        assert not short.done()
        assert not bulk.done()
        for task in (short, bulk):
            task.cancel()


async def test_what_was_expected_to_fit_is_not_refused_for_a_little_more_once_it_is_tokenized() -> None:
    async with crowded(FakeEngine(), 3000) as runner:
        would_be_taken(runner, INTERACTIVE, 400)
        with pytest.raises(ResourceExhausted):
            would_be_taken(runner, INTERACTIVE, 540)
        little_more = start(runner, *range(54))  # of 10 tokens each
        await settle()
        assert not little_more.done()
        little_more.cancel()


async def test_a_query_that_would_wait_past_its_deadline_is_refused_at_once() -> None:
    async with crowded(FakeEngine(), 3000) as runner:

        async def query(seconds: float) -> object:
            return await runner.run(
                [sequence(at) for at in range(20)], priority=INTERACTIVE, deadline=time.monotonic() + seconds
            )

        with pytest.raises(ResourceExhausted) as refused:
            await query(0.1)  # 0.2 s behind as much as it brings itself
        assert refused.value.reason == "WAIT_TOO_LONG"
        patient = asyncio.create_task(query(5.0))
        await settle()
        assert not patient.done()
        patient.cancel()


async def test_before_tokenizing_only_a_query_is_sent_away_for_a_long_wait() -> None:
    limits = RunnerLimits(
        max_batch_tokens=1000,
        max_queued_tokens=10_000,
        max_wait_seconds=0.05,
        warm_up_lengths=(8,),
        batch_seconds=0.025,
    )
    engine = FakeEngine()
    engine.seconds_per_token = 1e-3
    async with running(engine, limits) as runner:
        engine.gate.clear()
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(run(runner, 1))]
        await until(lambda: engine.ran[-1][1] == [1])
        for _ in range(6):  # which rather wait than be refused
            waiting = runner.run([sequence(2)] * 5, priority=INTERACTIVE, wait_for_room=True)
            tasks.append(asyncio.create_task(waiting))
        await settle()
        with pytest.raises(ResourceExhausted) as refused:
            would_be_taken(runner, INTERACTIVE, 0)
        assert refused.value.reason == "WAIT_TOO_LONG"
        would_be_taken(runner, BULK, 0)
        engine.seconds_per_token = 0.0
        engine.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_bulk_work_without_room_is_told_the_limit_that_is_its_own() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=1000)
    async with running(engine, limits) as runner:
        bulk = start(runner, *range(75), priority=BULK)
        await until(lambda: len(engine.ran) == 1)
        more = start(runner, *range(10), priority=BULK)
        await settle()
        with pytest.raises(ResourceExhausted, match="and 750 may"):
            await run(runner, *range(10), priority=BULK)
        with pytest.raises(ResourceExhausted, match="and 750 may"):
            would_be_taken(runner, BULK, 0)
        would_be_taken(runner, INTERACTIVE, 0)
        engine.gate.set()
        await asyncio.gather(bulk, more)


async def test_what_is_being_tokenized_takes_room_until_it_is_in_the_queue() -> None:
    async with running(FakeEngine(), RunnerLimits(max_batch_tokens=100, max_queued_tokens=1000)) as runner:
        with runner.expecting(INTERACTIVE, 600), runner.expecting(BULK, 400):
            with pytest.raises(ResourceExhausted) as refused:
                would_be_taken(runner, INTERACTIVE, 10)
            assert (refused.value.reason, refused.value.metadata["queued_tokens"]) == ("QUEUE_FULL", "1000")
        with runner.expecting(INTERACTIVE, 750):
            with pytest.raises(ResourceExhausted):
                would_be_taken(runner, BULK, 10)
            would_be_taken(runner, INTERACTIVE, 10)
            # What comes into the queue now was tokenized before that: it is not behind it.
            assert await run(runner, *range(90))
        would_be_taken(runner, BULK, 10)


async def test_what_is_being_tokenized_is_waited_for_like_what_is_in_the_queue() -> None:
    async with crowded(FakeEngine(), 10) as runner:
        with runner.expecting(INTERACTIVE, 200):
            would_be_taken(runner, INTERACTIVE, 600)
            with runner.expecting(INTERACTIVE, 600), pytest.raises(ResourceExhausted) as refused:
                would_be_taken(runner, INTERACTIVE, 600)
            assert refused.value.reason == "WAIT_TOO_LONG"


async def test_a_request_that_would_wait_too_long_for_the_tokenizer_is_refused() -> None:
    async with running(FakeEngine(), SLOW) as runner:
        with runner.expecting(INTERACTIVE, 10, wait_seconds=0.4):
            pass
        with pytest.raises(ResourceExhausted) as refused, runner.expecting(INTERACTIVE, 10, wait_seconds=0.6):
            pass
        assert refused.value.reason == "WAIT_TOO_LONG"
