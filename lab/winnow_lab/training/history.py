"""How a training went: its losses and what was measured on the way. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

METRIC = "metric"
"""Under this name the trainer also keeps the metric that decides, whatever it is called."""

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Point:
    """A value at an optimizer step."""

    step: int
    value: float


@dataclass(frozen=True, kw_only=True)
class History:
    """What a training logged."""

    metric: str
    """Name of the metric that decides; empty if nothing was evaluated."""
    metrics: Sequence[Point]
    """It, from before the first step on."""
    losses: Sequence[Point]
    """Mean loss since the last of them."""
    evaluations: Sequence[Mapping[str, float]]
    """All that the evaluators said, with `step`."""

    @property
    def first(self) -> Point | None:
        """The metric of the starting model."""
        return next((point for point in self.metrics if point.step == 0), None)

    @property
    def best(self) -> Point | None:
        """The best of the trained models, the earliest if there are several: the one that is kept.

        None if no metric of one was a number; then the last is.
        """
        known = (point for point in self.metrics if point.step > 0 and not math.isnan(point.value))
        return max(known, key=lambda point: point.value, default=None)

    @property
    def last(self) -> Point | None:
        """The metric at the end."""
        return self.metrics[-1] if self.metrics else None


def read_log(log: Sequence[Mapping[str, Any]], *, wanted: str) -> History:
    """The history in what a trainer logged (`trainer.state.log_history`); `wanted` names what decides."""
    losses = [Point(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]
    evaluations = []
    metrics = []
    name = ""
    for entry in log:
        said = {
            key.removeprefix("eval_"): float(value)
            for key, value in entry.items()
            if key.startswith("eval_") and key.removeprefix("eval_") not in (METRIC, *_SPEEDS)
        }
        name = resolve_metric(wanted, list(said)) or name
        if name in said:
            metrics.append(Point(int(entry["step"]), said[name]))
            evaluations.append({"step": float(entry["step"]), **said})
    return History(metric=name, metrics=metrics, losses=losses, evaluations=evaluations)


_SPEEDS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def resolve_metric(wanted: str, names: Sequence[str]) -> str | None:
    """The metric that is meant by a name: itself, or the only one that ends in it; None if there is no such one.

    `ndcg@10` means `dev_cosine_ndcg@10`; never `dev_base_ndcg@10`, which is of candidates that were not reranked.
    """
    if wanted in names:
        return wanted
    ending = [name for name in names if name.endswith(f"_{wanted}") and "base_" not in name]
    return ending[0] if len(ending) == 1 else None


def sparkline(values: Sequence[float], *, width: int = 60) -> str:
    """A curve in one line of text, lowest to highest; of more than `width` values the means of neighbours.

    A gap where one is no number.
    """
    if not values:
        return ""
    count = min(width, len(values))
    cuts = [round(at * len(values) / count) for at in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(cuts)]
    known = [mean for mean in means if not math.isnan(mean)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = high - low or 1.0
    return "".join(" " if math.isnan(mean) else _BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
