"""Part `embed`: bulk embedding of many passages, everyone in turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from rich.progress import Progress

from winnow_lab.bench_figures import Vectors, cosines
from winnow_lab.bench_inference.contestants import (
    REFERENCE,
    Contestant,
    Done,
    entrants,
    in_process,
    ours,
    start_all,
)
from winnow_lab.bench_inference.plan import GROUP, Plan
from winnow_lab.bench_inference.rounds import profiles, speeds, take_turns

# Enough for every batch shape to have been seen, and for costs to have been learned.
_WARM_UP_TEXTS = 4 * GROUP


async def measure_embedding(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Texts a second of everyone, as a ratio to the reference in the same run, and how alike the vectors are."""
    texts, tokens = plan.texts.passages, sum(plan.texts.passage_tokens)
    vectors: dict[str, Vectors] = {}

    async def turn(contestant: Contestant) -> list[Done]:
        done = await contestant.embed(texts, vectors=contestant.name not in vectors)
        if done.vectors is not None:
            vectors[contestant.name] = done.vectors
        return [done]

    async with AsyncExitStack() as stack:
        task = progress.add_task("embed: start everyone", total=None)
        started, failed = await start_all(
            stack, entrants(plan, "bi"), lambda what: progress.update(task, description=f"embed: {what}")
        )
        progress.update(task, total=1, completed=1, description="embed: everyone has started")

        async def warm_up(contestant: Contestant) -> list[Done]:
            return [await contestant.embed(texts[:_WARM_UP_TEXTS], vectors=False)]

        async def everyone(do: Any, rounds: int, what: str) -> dict[str, list[list[Done]]]:
            return await take_turns(started, do, rounds=rounds, failed=failed, progress=progress, what=what)

        await everyone(warm_up, 1, "embed: warm up")
        done = await everyone(turn, plan.rounds, "embed")
    reference = speeds(done[REFERENCE], items=len(texts), tokens=tokens) if REFERENCE in done else None
    rows = []
    for contestant in started:
        if contestant.name in done:
            speed = speeds(done[contestant.name], items=len(texts), tokens=tokens)
            rows.append(
                {
                    "name": contestant.name,
                    "precision": contestant.precision,
                    "version": contestant.version,
                    **speed,
                    "ratio": round(reference["seconds"] / speed["seconds"], 3) if reference else None,
                    **_likeness(vectors, contestant.name),
                }
            )
    pairs = [(ours(dtype), in_process(dtype)) for dtype in plan.dtypes]
    return {
        "texts": len(texts),
        "tokens": tokens,
        "rounds": plan.rounds,
        "contestants": rows,
        "failed": failed,
        "profile": profiles(done, pairs, tokens=tokens),
    }


def _likeness(vectors: Mapping[str, Vectors], name: str) -> dict[str, float | None]:
    """Cosine of the contestant's vectors with the reference's: mean and least."""
    if name not in vectors or REFERENCE not in vectors:
        return {"cosine_mean": None, "cosine_min": None}
    found = cosines(vectors[name], vectors[REFERENCE])
    return {"cosine_mean": round(float(found.mean()), 6), "cosine_min": round(float(found.min()), 6)}
