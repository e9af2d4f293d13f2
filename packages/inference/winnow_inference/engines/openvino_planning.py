"""How a model runs best on this machine's cores: measured, not guessed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_inference.engines.openvino_engine import CpuDtype, OpenVinoEngine, Plan
from winnow_inference.facts import ModelFacts
from winnow_inference.parity import LOSSLESS, Parity
from winnow_inference.reference import Reference, parity
from winnow_inference.sequences import TokenSequence

# What is timed: a small batch of passages, for so long, the better of two runs. The whole takes about three seconds,
# once.
_LENGTH, _COUNT, _SECONDS, _RUNS = 128, 2, 0.25, 2
# Less than this may be the machine's mood, and the plan that comes first is the better one but for speed.
_WORTH_CHANGING = 1.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Streams side by side, and threads of each."""

    streams: int
    threads: int

    def __str__(self) -> str:
        return f"{self.streams} × {self.threads} {'thread' if self.threads == 1 else 'threads'}"


def layouts(cores: int) -> list[Layout]:
    """Ways to share out the cores, the one that wastes least first: streams of one thread never wait for each other."""
    threads = [1, *(size for size in (2, 4, 8) if size < cores and cores % size == 0), cores]
    return [Layout(cores // size, size) for size in dict.fromkeys(threads)]


def first_unless_slower(rates: Sequence[float]) -> int:
    """Position of the first rate, or of the best one if that is clearly better."""
    best = max(range(len(rates)), key=lambda at: rates[at])
    return best if rates[best] > rates[0] * _WORTH_CHANGING else 0


def computes_bfloat16() -> bool:
    """OpenVINO says that this processor computes bfloat16."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def make_plan(
    file: Path,
    facts: ModelFacts,
    reference: Reference,
    *,
    dtypes: Sequence[CpuDtype],
    cores: int,
    must_be_lossless: bool,
) -> tuple[Plan, Parity]:
    """The dtype and the layout that compute most tokens a second, and how close the results are to float32's.

    `dtypes` in the order of preference, the last one being what remains if the others are slower or, where it
    `must_be_lossless`, too coarse for this model.
    """

    def engine_of(dtype: CpuDtype, layout: Layout, reason: str = "") -> OpenVinoEngine:
        plan = Plan(dtype=dtype, streams=layout.streams, threads=layout.threads, reason=reason)
        return OpenVinoEngine(file, plan, padding=facts.padding, width=facts.width, express=False)

    said: list[str] = []
    ways = layouts(cores)
    close: dict[CpuDtype, Parity] = {}
    for dtype in dtypes:
        found = parity(facts, reference, engine_of(dtype, ways[0]))
        if must_be_lossless and dtype != "float32" and found.least < LOSSLESS[found.measure]:
            said.append(f"{dtype} too coarse for this model ({found})")
        else:
            close[dtype] = found
    length = min(_LENGTH, facts.max_token_count)
    fit: list[CpuDtype] = list(close)
    rates = [_rate(lambda dtype=dtype: engine_of(dtype, ways[0]), length) for dtype in fit]  # type: ignore[misc]
    chosen = fit[first_unless_slower(rates)]
    said.append(", ".join(f"{dtype} {rate:,.0f} tokens/s" for dtype, rate in zip(fit, rates, strict=True)))
    laid_out = [_rate(lambda way=way: engine_of(chosen, way), length) for way in ways]  # type: ignore[misc]
    layout = ways[first_unless_slower(laid_out)]
    if len(ways) > 1:
        said.append(", ".join(f"{way} {rate:,.0f}" for way, rate in zip(ways, laid_out, strict=True)))
    said.append(str(close[chosen]))
    plan = Plan(dtype=chosen, streams=layout.streams, threads=layout.threads, reason="; ".join(said))
    return plan, close[chosen]


def _rate(make_engine: Callable[[], OpenVinoEngine], length: int) -> float:
    """Tokens a second with every lane busy."""
    engine = make_engine()
    batch = engine.prepare([TokenSequence.blank(length)] * _COUNT)
    for lane in range(engine.lanes.count):
        engine.run(batch, lane)
    best = 0.0
    for _ in range(_RUNS):
        counts = [0] * engine.lanes.count
        began = time.perf_counter()
        until = began + _SECONDS

        def work(lane: int, counts: list[int] = counts, until: float = until) -> None:
            while time.perf_counter() < until:
                engine.run(batch, lane)
                counts[lane] += 1

        threads = [threading.Thread(target=work, args=(lane,), name="measure") for lane in range(engine.lanes.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, sum(counts) * _COUNT * length / (time.perf_counter() - began))
    engine.close()
    return best
