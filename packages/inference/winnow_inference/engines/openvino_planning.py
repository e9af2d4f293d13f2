"""How a model runs best on this machine's cores: measured, not guessed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_inference.engines.openvino_engine import CpuDtype, OpenVinoEngine, Plan
from winnow_inference.models.facts import ModelFacts
from winnow_inference.parity import LOSSLESS, Parity
from winnow_inference.reference import Reference, parity
from winnow_inference.sequences import TokenSequence

# What is timed: a small batch of passages, for so long a turn. The whole takes two to three seconds, once.
_LENGTH, _COUNT, _TURN_SECONDS, _TURNS = 128, 2, 0.15, 4
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

    def engine_of(dtype: CpuDtype, layout: Layout) -> OpenVinoEngine:
        plan = Plan(dtype=dtype, streams=layout.streams, threads=layout.threads, reason="")
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
    fit = list(close)
    by_dtype = _rates([engine_of(dtype, ways[0]) for dtype in fit], length)
    chosen = fit[first_unless_slower(by_dtype)]
    said.append(", ".join(f"{dtype} {rate:,.0f} tokens/s" for dtype, rate in zip(fit, by_dtype, strict=True)))
    by_layout = _rates([engine_of(chosen, way) for way in ways], length)
    layout = ways[first_unless_slower(by_layout)]
    if len(ways) > 1:
        said.append(", ".join(f"{way} {rate:,.0f}" for way, rate in zip(ways, by_layout, strict=True)))
    said.append(str(close[chosen]))
    plan = Plan(dtype=chosen, streams=layout.streams, threads=layout.threads, reason="; ".join(said))
    return plan, close[chosen]


def _rates(engines: Sequence[OpenVinoEngine], length: int) -> list[float]:
    """Tokens a second of each engine with every lane busy. They take turns, so that a machine whose speed changes
    favours none, and the best turn of each counts."""
    best = [0.0] * len(engines)
    for turn in range(_TURNS + 1):
        for at, engine in enumerate(engines):
            rate = _rate(engine, length)
            # The first turn is spent on what is made at first use.
            best[at] = max(best[at], rate) if turn else 0.0
    for engine in engines:
        engine.close()
    return best


def _rate(engine: OpenVinoEngine, length: int) -> float:
    batch = engine.prepare([TokenSequence.blank(length)] * _COUNT)
    counts = [0] * engine.lanes.count
    began = time.perf_counter()
    until = began + _TURN_SECONDS

    def work(lane: int) -> None:
        while time.perf_counter() < until:
            engine.run(batch, lane)
            counts[lane] += 1

    threads = [threading.Thread(target=work, args=(lane,), name="measure") for lane in range(engine.lanes.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * _COUNT * length / (time.perf_counter() - began)
