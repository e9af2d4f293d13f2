"""Part `soak`: bulk work, queries and reranking for a long time; memory and results are watched."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from winnow_lab.bench_figures import growth, percentiles
from winnow_lab.bench_inference.loads import GENERATOR
from winnow_lab.bench_inference.plan import Plan
from winnow_lab.bench_inference.services import running_service
from winnow_lab.bench_inference.workers import running_worker

_SAMPLE_SECONDS = 2.0
_QUERIES = 40
_RERANKED = 20
_RERANKS_PER_SECOND = 1.0


async def measure_soak(plan: Plan, dtype: str, progress: Progress) -> dict[str, Any]:
    """The embedder and the reranker under mixed load: wrong results, and how their memory grew. MiB, milliseconds."""
    texts = plan.texts
    task = progress.add_task(f"soak, {dtype}: start both services", total=round(plan.soak_seconds))
    async with (
        running_service("embedder", plan.service_flags("bi", dtype)) as embedder,
        running_service("reranker", plan.service_flags("cross", dtype)) as reranker,
        running_worker("load generator", python=Path(sys.executable), module=GENERATOR) as load,
    ):
        queries = texts.queries[:_QUERIES]
        working = asyncio.create_task(
            load.call(
                "soak",
                seconds_allowed=plan.soak_seconds + 900,
                embedder=embedder.address,
                reranker=reranker.address,
                queries=queries,
                passages=texts.passages,
                candidates=[
                    [texts.passages[each] for each in found[:_RERANKED]]
                    for found in texts.candidates[: len(queries) // 2]
                ],
                query_rate=plan.query_rate / 2,
                rerank_rate=_RERANKS_PER_SECOND,
                seconds=plan.soak_seconds,
            )
        )
        samples = await _watch(
            {"embedder": embedder.pid, "reranker": reranker.pid},
            working,
            lambda seconds: progress.update(
                task, completed=min(seconds, plan.soak_seconds), description=f"soak, {dtype}"
            ),
        )
        answer = await working
    return {
        "seconds": plan.soak_seconds,
        **answer["checked"],
        "errors": len(answer["errors"]),
        "error_kinds": dict(Counter(answer["errors"])),
        "query_latency": percentiles([each * 1000 for each in answer["latencies"]["query"]]),
        "rerank_latency": percentiles([each * 1000 for each in answer["latencies"]["rerank"]]),
        "memory": {name: growth(found) for name, found in samples.items()},
        "memory_samples": samples,
    }


async def _watch(
    pids: Mapping[str, int], working: asyncio.Task[dict[str, Any]], tell: Any
) -> dict[str, list[tuple[float, float]]]:
    """(seconds, MiB) of each process every few seconds, until the work is done; nothing where /proc is not there."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
    began = time.monotonic()
    try:
        while not working.done():
            passed = time.monotonic() - began
            for name, pid in pids.items():
                if (size := resident_mib(pid)) is not None:
                    samples[name].append((round(passed, 1), round(size, 2)))
            tell(passed)
            await asyncio.wait([working], timeout=_SAMPLE_SECONDS)
    finally:
        working.cancel()
    return samples


def resident_mib(pid: int) -> float | None:
    """Memory of a process that is in use, MiB; None where the system does not tell it in /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
