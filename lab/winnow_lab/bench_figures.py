"""Arithmetic on measured values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the worst, by the nearest rank, so that each is a value that was measured; unit as given.

    Of no values there are none: an empty dict.
    """
    if not values:
        return {}
    cuts = np.percentile(values, [50, 95, 99, 100], method="inverted_cdf")
    return {name: round(float(cut), 3) for name, cut in zip(("p50", "p95", "p99", "worst"), cuts, strict=True)}


@dataclass(frozen=True, slots=True)
class Range:
    """What several rounds gave."""

    median: float
    low: float
    high: float


def range_of(values: Sequence[float]) -> Range:
    """Median, least and greatest of at least one value."""
    return Range(float(np.median(values)), min(values), max(values))


def turns(count: int, turn: int) -> list[int]:
    """The order of contestants in a round. Each round begins with the next one: drift of the machine hits all alike."""
    return [(turn + position) % count for position in range(count)]


def cosines(first: Vectors, second: Vectors) -> npt.NDArray[np.float64]:
    """Cosine of each row of one matrix with the same row of another."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosine: npt.NDArray[np.float64] = (one * other).sum(axis=1) / lengths
    return cosine


def padding_share(batches: Sequence[tuple[int, int, int]]) -> float:
    """Share of padding in what the device computed. A batch is (sequences, tokens of the longest, tokens of all)."""
    computed = sum(count * longest for count, longest, _ in batches)
    return 1 - sum(tokens for _, _, tokens in batches) / computed if computed else 0.0


def arrivals(rate: float, seconds: float) -> list[float]:
    """When the calls of an open loop begin: evenly spaced seconds from 0, whatever becomes of the calls before."""
    return [number / rate for number in range(round(rate * seconds))]


def lag_verdict(lags: Sequence[float]) -> dict[str, float | bool]:
    """How late an open loop's calls began, in milliseconds; it lagged if one in a hundred was over 10 ms late."""
    cuts = percentiles([lag * 1000 for lag in lags])
    return {"p50_ms": cuts.get("p50", 0.0), "p99_ms": cuts.get("p99", 0.0), "lagged": cuts.get("p99", 0.0) > 10.0}


def growth(samples: Sequence[tuple[float, float]], *, warm_up_seconds: float = 60.0) -> Mapping[str, float] | None:
    """How memory grew after the warm-up.

    `samples` are (seconds, MiB). The first and the last tenth of what comes after the warm-up are compared by their
    medians, so that one high sample decides nothing; `mib_per_minute` is the slope of the line of least squares. A run
    shorter than four warm-ups gives a quarter of itself to it. None if there are fewer than four samples.
    """
    if len(samples) < 4:
        return None
    end = samples[-1][0]
    settled = [(at, size) for at, size in samples if at >= min(warm_up_seconds, end / 4)]
    tenth = max(1, len(settled) // 10)
    before = float(np.median([size for _, size in settled[:tenth]]))
    after = float(np.median([size for _, size in settled[-tenth:]]))
    times, sizes = (np.array(column, dtype=np.float64) for column in zip(*settled, strict=True))
    slope = float(np.polyfit(times, sizes, 1)[0]) if len(settled) > 1 else 0.0
    return {
        "from_mib": round(before, 1),
        "to_mib": round(after, 1),
        "growth_mib": round(after - before, 1),
        "mib_per_minute": round(slope * 60, 2),
    }
