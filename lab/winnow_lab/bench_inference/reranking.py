"""Part `rerank`: many passages for each of a few queries, everyone in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from rich.progress import Progress

from winnow_lab.bench_inference.contestants import (
    REFERENCE,
    Contestant,
    Done,
    entrants,
    in_process,
    ours,
    start_all,
)
from winnow_lab.bench_inference.plan import Plan
from winnow_lab.bench_inference.rounds import profiles, speeds, take_turns
from winnow_relevance import spearman

SORTED = f"{REFERENCE} sorted"


class _Sorted:
    """The reference, given the documents by falling length: what is gained by padding less, and by nothing else."""

    def __init__(self, reference: Contestant, lengths: Mapping[str, int]) -> None:
        self.name = SORTED
        self.precision = reference.precision
        self.version = reference.version
        self._reference = reference
        self._lengths = lengths

    async def embed(self, texts: Sequence[str], *, vectors: bool) -> Done:
        raise NotImplementedError

    async def rerank(self, query: str, documents: Sequence[str]) -> Done:
        order = sorted(range(len(documents)), key=lambda at: -self._lengths[documents[at]])
        done = await self._reference.rerank(query, [documents[at] for at in order])
        scores = [0.0] * len(documents)
        for at, score in zip(order, done.scores, strict=True):
            scores[at] = score
        return Done(seconds=done.seconds, scores=scores)


async def measure_reranking(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Pairs a second of everyone, as a ratio to the reference in the same run, and how alike the orders are."""
    texts = plan.texts
    asked = list(range(min(plan.rerank_queries, len(texts.queries))))
    work = [(texts.queries[at], [texts.passages[each] for each in texts.candidates[at]]) for at in asked]
    pairs = sum(len(documents) for _, documents in work)
    tokens = 0

    async def turn(contestant: Contestant) -> list[Done]:
        return [await contestant.rerank(query, documents) for query, documents in work]

    async def warm_up(contestant: Contestant) -> list[Done]:
        return [await contestant.rerank(*work[0])]

    async with AsyncExitStack() as stack:
        task = progress.add_task("rerank: start everyone", total=None)
        started, failed = await start_all(
            stack, entrants(plan, "cross"), lambda what: progress.update(task, description=f"rerank: {what}")
        )
        progress.update(task, total=1, completed=1, description="rerank: everyone has started")
        references = [contestant for contestant in started if contestant.name == REFERENCE]
        lengths = dict(zip(texts.passages, texts.passage_tokens, strict=True))
        started[1:1] = [_Sorted(reference, lengths) for reference in references]

        async def everyone(do: Any, rounds: int, what: str) -> dict[str, list[list[Done]]]:
            return await take_turns(started, do, rounds=rounds, failed=failed, progress=progress, what=what)

        await everyone(warm_up, 1, "rerank: warm up")
        done = await everyone(turn, plan.rounds, "rerank")
    for dtype in plan.dtypes:
        if ours(dtype) in done:
            tokens = sum(answer.tokens for each in done[ours(dtype)][0] for answer in each.answers)
    reference = speeds(done[REFERENCE], items=pairs, tokens=tokens) if REFERENCE in done else None
    rows = []
    for contestant in started:
        if contestant.name in done:
            speed = speeds(done[contestant.name], items=pairs, tokens=tokens)
            rows.append(
                {
                    "name": contestant.name,
                    "precision": contestant.precision,
                    "version": contestant.version,
                    **speed,
                    "seconds_per_query": round(speed["seconds"] / len(work), 4),
                    "ratio": round(reference["seconds"] / speed["seconds"], 3) if reference else None,
                    **_likeness(done, contestant.name),
                }
            )
    names = [(ours(dtype), in_process(dtype)) for dtype in plan.dtypes]
    return {
        "queries": len(work),
        "pairs": pairs,
        "tokens": tokens,
        "rounds": plan.rounds,
        "contestants": rows,
        "failed": failed,
        "profile": profiles(done, names, tokens=tokens),
    }


def _likeness(done: Mapping[str, Sequence[Sequence[Done]]], name: str) -> dict[str, float | None]:
    """Spearman's correlation with the reference's scores: mean and least over the queries."""
    if REFERENCE not in done:
        return {"spearman_mean": None, "spearman_min": None}
    found = [
        spearman(mine.scores, reference.scores)
        for mine, reference in zip(done[name][0], done[REFERENCE][0], strict=True)
    ]
    return {"spearman_mean": round(float(np.mean(found)), 4), "spearman_min": round(float(np.min(found)), 4)}
