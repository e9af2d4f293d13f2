"""Runners over fake engines, and how to wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.unit.inference.fakes import FakeEngine, sequence
from winnow_inference.scheduling.limits import RunnerLimits
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.scheduling.runner import Runner

LIMITS = RunnerLimits(max_batch_tokens=100, max_queued_tokens=1000)


@contextlib.asynccontextmanager
async def running(engine: FakeEngine, limits: RunnerLimits = LIMITS) -> AsyncIterator[Runner]:
    runner = Runner(lambda: engine, limits)
    await runner.start()
    try:
        yield runner
    finally:
        engine.gate.set()
        engine.release(*range(engine.lanes.total))
        await runner.close()


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Waits for what another thread does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another thread's doing, for which there is no event
            await asyncio.sleep(0.001)


async def run(runner: Runner, *firsts: int, priority: Priority = Priority.INTERACTIVE, length: int = 10) -> list[int]:
    answer = await runner.run([sequence(first, length) for first in firsts], priority=priority)
    return [int(value) for value in answer.rows[:, 0]]


def start(
    runner: Runner, *firsts: int, priority: Priority = Priority.INTERACTIVE, length: int = 10
) -> asyncio.Task[list[int]]:
    return asyncio.create_task(run(runner, *firsts, priority=priority, length=length))


def would_be_taken(runner: Runner, priority: Priority, tokens: int) -> None:
    """Raises what a request of so many tokens is told before it is tokenized."""
    with runner.expecting(priority, tokens):
        pass
