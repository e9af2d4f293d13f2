"""Rounds in which contestants take turns, so that drift of the machine hits all alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rich.progress import Progress

from winnow_lab.bench_figures import range_of, turns
from winnow_lab.bench_inference.contestants import Contestant, Done
from winnow_lab.bench_inference.profile import profile
from winnow_rpc.faults import Fault

Turn = Callable[[Contestant], Awaitable[list[Done]]]

# After its turn a contestant's threads may spin for a while before they sleep.
_PAUSE_SECONDS = 0.5


async def take_turns(
    contestants: Sequence[Contestant],
    turn: Turn,
    *,
    rounds: int,
    failed: dict[str, str],
    progress: Progress,
    what: str,
) -> dict[str, list[list[Done]]]:
    """What each contestant did in each round. Who fails in its turn is in `failed` instead, and takes no more."""
    done: dict[str, list[list[Done]]] = {contestant.name: [] for contestant in contestants}
    task = progress.add_task(what, total=rounds * len(contestants))
    for number in range(rounds):
        for position in turns(len(contestants), number):
            contestant = contestants[position]
            if contestant.name not in failed:
                progress.update(task, description=f"{what}, round {number + 1}: {contestant.name}")
                try:
                    done[contestant.name].append(await turn(contestant))
                except Fault as fault:
                    failed[contestant.name] = fault.message
                await asyncio.sleep(_PAUSE_SECONDS)
            progress.advance(task)
    progress.update(task, description=what)
    return {name: found for name, found in done.items() if name not in failed}


def speeds(done: Sequence[Sequence[Done]], *, items: int, tokens: int) -> dict[str, float]:
    """Items and tokens a second over the rounds, by the median, with the range of the rounds."""
    seconds = range_of([sum(each.seconds for each in turn) for turn in done])
    return {
        "per_second": round(items / seconds.median, 2),
        "per_second_low": round(items / seconds.high, 2),
        "per_second_high": round(items / seconds.low, 2),
        "tokens_per_second": round(tokens / seconds.median),
        "seconds": round(seconds.median, 4),
    }


def profiles(
    done: dict[str, list[list[Done]]], pairs: Sequence[tuple[str, str]], *, tokens: int
) -> dict[str, dict[str, Any]]:
    """Where our time goes, for each of our services beside its engine in process; `pairs` are their names."""
    made = {}
    for service, engine in pairs:
        if service in done and engine in done:
            made[service] = profile(done[service], done[engine], tokens=tokens)
    return made
