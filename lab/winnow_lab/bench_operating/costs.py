"""What a stack took: its latency beside another's, memory, processor time, and what one span and one count take."""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from winnow_lab.bench_figures import percentiles, range_of
from winnow_lab.bench_inference.soak import resident_mib
from winnow_rpc import tracing
from winnow_rpc.metrics import RpcMetrics, new_registry


def compared(rounds: Sequence[Sequence[float]], plain: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    """Latency over all rounds; against another stack's, the ratio of p50, and the range of its rounds' ratios."""
    latency = percentiles([each for block in rounds for each in block])
    figures: dict[str, Any] = {"searches": sum(map(len, rounds)), "latency": latency}
    if plain is not None:
        base = percentiles([each for block in plain for each in block])
        ratios = [
            percentiles(mine)["p50"] / percentiles(other)["p50"] for mine, other in zip(rounds, plain, strict=True)
        ]
        spread = range_of(ratios)
        figures["p50_ratio"] = round(latency["p50"] / base["p50"], 4)
        figures["p50_ratio_by_round"] = {
            "median": round(spread.median, 4),
            "low": round(spread.low, 4),
            "high": round(spread.high, 4),
        }
    return figures


def memory_mib(pids: Mapping[str, int]) -> dict[str, float]:
    """MiB that each process holds now, by service; empty where the system does not tell."""
    found = {}
    for service, pid in pids.items():
        if (mib := resident_mib(pid)) is not None:
            found[service] = round(mib, 1)
    return found


def processor_seconds(pids: Mapping[str, int]) -> float:
    """Seconds that these processes have computed so far, together; 0 where the system does not tell. Unlike the time
    that a search takes, it hardly grows when others want the machine too."""
    total = 0.0
    for pid in pids.values():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def nanoseconds(repeats: int = 20_000) -> dict[str, float]:
    """What one span and one count take: a span while nobody traces, one that is recorded, a call counted."""

    def a_span() -> None:
        with tracing.span("stage") as span:
            span.set(candidates=100)

    def timed(call: Callable[[], None]) -> float:
        return round(min(timeit.repeat(call, number=repeats, repeat=5)) / repeats * 1e9, 1)

    metrics = RpcMetrics(new_registry())
    tracing.use(None)
    figures = {"span_off": timed(a_span)}
    tracing.use(TracerProvider(shutdown_on_exit=False))
    try:
        figures["span_recorded"] = timed(a_span)
    finally:
        tracing.use(None)
    figures["call_counted"] = timed(lambda: metrics.ended("winnow.search.v1.SearchService/Search", "OK", 0.01))
    return figures
