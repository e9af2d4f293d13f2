"""Parts `query`, `mixed` and `overload`: one embedder under load from a process of its own, for each number format."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from winnow_lab.bench_figures import lag_verdict, percentiles, range_of
from winnow_lab.bench_inference.calls import EmbedderCalls
from winnow_lab.bench_inference.plan import Plan
from winnow_lab.bench_inference.services import RunningService, answering, running_service
from winnow_lab.bench_inference.workers import Worker, running_worker
from winnow_rpc.faults import Fault

GENERATOR = "winnow_lab.bench_inference.load_generator"
_IN_PROCESS = "winnow_lab.bench_inference.in_process"
_WARM_UP = 30
_QUERY_ROUNDS = 3
_CAPACITY_CLIENTS = 4
_CAPACITY_SECONDS = 5.0
# Twice what it can do.
_OVERLOAD = 2.0

Measure = Callable[[Plan, str, Progress], Awaitable[dict[str, Any]]]


async def measure_each(plan: Plan, progress: Progress, measure: Measure) -> list[dict[str, Any]]:
    """A part, for each number format; of one that cannot be measured, the reason in one sentence."""
    found: list[dict[str, Any]] = []
    for dtype in plan.dtypes:
        try:
            found.append({"dtype": dtype, **await measure(plan, dtype, progress)})
        except Fault as fault:
            found.append({"dtype": dtype, "failed": fault.message})
    return found


@asynccontextmanager
async def _loaded(
    plan: Plan, dtype: str, progress: Progress, part: str, **flags: object
) -> AsyncIterator[tuple[RunningService, Worker, str]]:
    """An embedder, warm, with a load generator beside it, and what it computes with."""
    task = progress.add_task(f"{part}: start the embedder, {dtype}", total=1)
    async with (
        running_service("embedder", {**plan.service_flags("bi", dtype), **flags}) as service,
        running_worker("load generator", python=Path(sys.executable), module=GENERATOR) as load,
    ):
        async with EmbedderCalls(service.address) as calls:
            with answering("the embedder"):
                precision = await calls.precision()
        await _closed_loop(plan, load, service, count=_WARM_UP, clients=1)
        progress.advance(task)
        yield service, load, precision


async def _closed_loop(
    plan: Plan, load: Worker, service: RunningService, *, count: int, clients: int, seconds: float = 600.0
) -> dict[str, Any]:
    return await load.call(
        "queries", address=service.address, texts=plan.texts.queries, count=count, clients=clients, seconds=seconds
    )


async def measure_query(plan: Plan, dtype: str, progress: Progress) -> dict[str, Any]:
    """Latency of one query alone, through gRPC and straight in the engine, in turns. Milliseconds."""
    count = max(1, plan.query_count // _QUERY_ROUNDS)
    texts = [plan.texts.queries[at % len(plan.texts.queries)] for at in range(count)]
    through: list[float] = []
    straight: list[float] = []
    async with (
        _loaded(plan, dtype, progress, "query") as (service, load, precision),
        running_worker("engine in process", python=Path(sys.executable), module=_IN_PROCESS) as engine,
    ):
        await engine.call("load", kind="bi", settings=plan.settings("bi", dtype))
        await engine.call("tokenize_texts", texts=texts, query=True)
        await engine.call("singles")
        task = progress.add_task(f"query, {dtype}", total=_QUERY_ROUNDS)
        for _ in range(_QUERY_ROUNDS):
            through += (await _closed_loop(plan, load, service, count=count, clients=1))["latencies"]
            straight += (await engine.call("singles"))["seconds"]
            progress.advance(task)
    latency, alone = percentiles(_millis(through)), percentiles(_millis(straight))
    return {
        "precision": precision,
        "queries": len(through),
        "through_grpc": latency,
        "in_process": alone,
        "difference_p50": round(latency["p50"] - alone["p50"], 3),
    }


async def measure_mixed(plan: Plan, dtype: str, progress: Progress) -> dict[str, Any]:
    """Queries and bulk work, each alone and then together, in turns. Latencies in milliseconds."""
    stretches = {"queries alone": (True, False), "bulk alone": (False, True), "both": (True, True)}
    latencies: dict[str, list[float]] = {name: [] for name in stretches}
    rates: dict[str, list[float]] = {name: [] for name in stretches}
    async with _loaded(plan, dtype, progress, "mixed") as (service, load, precision):
        task = progress.add_task(f"mixed, {dtype}: warm up", total=plan.rounds * len(stretches))

        async def stretch(*, queries: bool, bulk: bool) -> dict[str, Any]:
            return await load.call(
                "mixed",
                address=service.address,
                texts=plan.texts.queries,
                passages=plan.texts.passages if bulk else [],
                rate=plan.query_rate if queries else 0,
                seconds=plan.mixed_seconds / plan.rounds,
            )

        # Shapes of bulk batches are new to the engine.
        await stretch(queries=False, bulk=True)
        for number in range(plan.rounds):
            for name, (queries, bulk) in stretches.items():
                progress.update(task, description=f"mixed, {dtype}, round {number + 1}: {name}")
                answer = await stretch(queries=queries, bulk=bulk)
                latencies[name] += answer["latencies"]
                rates[name].append(answer["bulk_per_second"])
                progress.advance(task)
    idle, under = (percentiles(_millis(latencies[name])) for name in ("queries alone", "both"))
    bulk_alone, bulk_beside = (range_of(rates[name]).median for name in ("bulk alone", "both"))
    return {
        "precision": precision,
        "seconds": plan.mixed_seconds,
        "rounds": plan.rounds,
        "query_rate": plan.query_rate,
        "query_idle": idle,
        "query_under_bulk": under,
        "p99_under_bulk_to_p50_idle": _ratio(under.get("p99"), idle.get("p50")),
        "bulk_alone_per_second": round(bulk_alone, 2),
        "bulk_beside_per_second": round(bulk_beside, 2),
        "bulk_kept": _ratio(bulk_beside, bulk_alone or None),
    }


async def measure_overload(plan: Plan, dtype: str, progress: Progress) -> dict[str, Any]:
    """Twice the calls that it can answer: what becomes of them. Latencies in milliseconds."""
    wait = {"max-wait-seconds": plan.overload_wait_seconds}
    async with _loaded(plan, dtype, progress, "overload", **wait) as (service, load, precision):
        task = progress.add_task(f"overload, {dtype}: capacity", total=2)
        work: dict[str, Any] = {"texts": plan.texts.passages, "per_call": plan.overload_texts}
        closed = await load.call(
            "queries",
            address=service.address,
            count=1_000_000,
            clients=_CAPACITY_CLIENTS,
            seconds=_CAPACITY_SECONDS,
            **work,
        )
        capacity = len(closed["latencies"]) / closed["seconds"]
        progress.update(task, completed=1, description=f"overload, {dtype}: twice the capacity")
        answer = await load.call(
            "overload",
            address=service.address,
            rate=capacity * _OVERLOAD,
            seconds=plan.overload_seconds,
            **work,
        )
        progress.advance(task)
    return {
        "precision": precision,
        "max_wait_seconds": plan.overload_wait_seconds,
        "texts_per_call": plan.overload_texts,
        "at_capacity": percentiles(_millis(closed["latencies"])),
        "capacity_per_second": round(capacity, 1),
        "clients": _CAPACITY_CLIENTS,
        "offered_per_second": round(capacity * _OVERLOAD, 1),
        "sent": len(answer["lags"]),
        "sent_per_second": round(len(answer["lags"]) / answer["sent_seconds"], 1),
        "lag": lag_verdict(answer["lags"]),
        "accepted": len(answer["accepted"]),
        "accepted_latency": percentiles(_millis(answer["accepted"])),
        "refused": len(answer["refused"]),
        "refusal_latency": percentiles(_millis(answer["refused"])),
        "errors": len(answer["failed"]),
        "error_kinds": dict(Counter(answer["failed"])),
    }


def _millis(seconds: list[float]) -> list[float]:
    return [each * 1000 for each in seconds]


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one is not None and other else None
