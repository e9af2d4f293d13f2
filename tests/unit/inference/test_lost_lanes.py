"""What becomes of all when a lane dies, is stuck or fails."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

import pytest

from tests.unit.inference.fakes import FakeEngine
from tests.unit.inference.running import run, running, settle, start, until
from winnow_inference.engines.base import EngineLost, Lanes
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.scheduling.runner import Runner
from winnow_inference.sequences import TokenSequence
from winnow_rpc.faults import Internal, Unavailable

BULK = Priority.BULK
LIMITS = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000)
EXPRESS = Lanes(count=2, express=True)
"""Lanes 0 and 1 are common, 2 and 3 express."""


async def back(runner: Runner) -> None:
    """Waits until it serves again."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(Unavailable):
                await runner.probe()
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("lane", range(4))
@pytest.mark.parametrize("death", [EngineLost("gone"), SystemExit(1)])
async def test_the_death_of_any_lane_fails_everybody_and_the_whole_engine_is_made_anew(
    lane: int, death: BaseException
) -> None:
    engines: list[FakeEngine] = []

    def make() -> FakeEngine:
        engines.append(FakeEngine(EXPRESS))
        return engines[-1]

    runner = Runner(make, LIMITS)
    await runner.start()
    try:
        first = engines[0]
        first.hold(0, 1, 2, 3)
        tasks = [start(runner, *range(100, 190), priority=BULK)]
        await until(lambda: len(first.on(0, 1)) == 2)
        tasks.append(start(runner, 1))
        await until(lambda: len(first.on(2)) == 1)
        tasks.append(start(runner, 2))
        await until(lambda: len(first.on(3)) == 1)
        tasks += [start(runner, at) for at in (3, 4)]
        await settle()

        def die(batch: Sequence[TokenSequence]) -> None:
            raise death

        first.fail = die
        first.release(lane)
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
        assert {getattr(outcome, "reason", outcome) for outcome in outcomes} == {"ENGINE_LOST"}
        with pytest.raises(Unavailable) as refused:
            await run(runner, 5)
        assert refused.value.retry_after is not None
        assert not first.closed, "it is closed while other lanes are at it"
        first.fail = lambda batch: None
        first.release(0, 1, 2, 3)
        await until(lambda: len(engines) == 2)
        await back(runner)
        assert first.closed
        assert not first.closed_while_running
        assert await run(runner, *range(20)) == list(range(20))
        assert await run(runner, *range(20), priority=BULK) == list(range(20))
        assert runner.queued_tokens == 0
        assert {lane for lane, _ in engines[1].ran} >= {0, 2}
    finally:
        for engine in engines:
            engine.release(0, 1, 2, 3)
        await runner.close()
    assert engines[1].closed


async def test_a_runner_that_is_closed_while_its_engine_is_made_anew_leaves_none_behind() -> None:
    engines: list[FakeEngine] = []
    may_be_made = threading.Event()
    may_be_made.set()

    def make() -> FakeEngine:
        engine = FakeEngine(EXPRESS)
        engines.append(engine)
        assert may_be_made.wait(5)
        return engine

    def die(batch: Sequence[TokenSequence]) -> None:
        raise EngineLost("gone")

    runner = Runner(make, LIMITS)
    await runner.start()
    may_be_made.clear()
    engines[0].fail = die
    with pytest.raises(Unavailable):
        await run(runner, 1)
    await until(lambda: len(engines) == 2)
    closing = asyncio.create_task(runner.close())
    await asyncio.sleep(0.05)
    may_be_made.set()
    await asyncio.wait_for(closing, 5)
    assert [engine.closed for engine in engines] == [True, True]
    with pytest.raises(Unavailable) as refused:
        await asyncio.wait_for(run(runner, 2), 1)
    assert refused.value.reason == "STOPPING"


async def test_a_lane_that_is_stuck_turns_the_probe_to_failure_though_others_answer() -> None:
    engine = FakeEngine(EXPRESS)
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000, stuck_seconds=0.1)
    async with running(engine, limits) as runner:
        engine.hold(0)
        bulk = start(runner, 100, priority=BULK)
        await until(lambda: len(engine.ran) == 1)
        await runner.probe()
        await asyncio.sleep(0.15)
        with pytest.raises(Unavailable) as refused:
            await runner.probe()
        assert refused.value.reason == "ENGINE_STUCK"
        assert refused.value.retry_after is not None
        engine.release(0)
        assert await bulk == [100]
        await runner.probe()


def only(bad: int) -> Callable[[Sequence[TokenSequence]], None]:
    def fail(batch: Sequence[TokenSequence]) -> None:
        if any(one.ids[0] == bad for one in batch):
            raise ValueError(bad)

    return fail


@pytest.mark.parametrize("lanes", [Lanes(), EXPRESS])
async def test_a_text_that_cannot_be_prepared_fails_only_its_own_request(lanes: Lanes) -> None:
    engine = FakeEngine(lanes)
    engine.fail_to_prepare = only(13)
    engine.gate.clear()
    async with running(engine, LIMITS) as runner:
        first = start(runner, 1)
        await until(lambda: len(engine.ran) == 1)
        tasks = [start(runner, at) for at in range(10, 17)]
        await settle()
        engine.gate.set()
        outcomes = await asyncio.wait_for(asyncio.gather(first, *tasks, return_exceptions=True), 2)
        assert runner.queued_tokens == 0
    bad = outcomes.pop(4)
    assert isinstance(bad, Internal)
    assert bad.reason == "INFERENCE_FAILED"
    assert outcomes == [[1], [10], [11], [12], [14], [15], [16]]


async def test_a_device_that_is_lost_before_the_first_batch_says_so_at_the_start() -> None:
    engine = FakeEngine(EXPRESS)

    def die(batch: Sequence[TokenSequence]) -> None:
        raise EngineLost("gone")

    engine.fail = die
    limits = RunnerLimits(max_batch_tokens=100, max_queued_tokens=10_000, warm_up_lengths=(8,))
    with pytest.raises(Exception, match="gone"):
        await Runner(lambda: engine, limits).start()
    assert engine.closed
