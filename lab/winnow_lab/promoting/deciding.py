"""Whether a candidate may take the place of the serving model. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from winnow_relevance import Difference, Estimate, detectable_difference, difference, estimate

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both models in one use of them, on one set."""

    set: str
    system: str
    """How they are used: "dense", "hybrid, rerank 100, as configured"."""
    measure: str
    query_count: int
    serving: Estimate
    candidate: Estimate
    difference: Difference
    """The candidate less the serving model."""
    detectable: float
    """The least true loss that so many queries show four times of five."""


def compare(set_: str, system: str, measure: str, *, serving: Values, candidate: Values) -> Comparison:
    """Compares per-query values of shape [queries], the same queries in the same order."""
    paired = candidate - serving
    # One query has no spread: it shows nothing.
    spread = float(paired.std(ddof=1)) if paired.size > 1 else math.inf
    return Comparison(
        set=set_,
        system=system,
        measure=measure,
        query_count=paired.size,
        serving=estimate(serving),
        candidate=estimate(candidate),
        difference=difference(candidate, serving),
        detectable=detectable_difference(spread, paired.size),
    )


def regressions(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Where the candidate is worse beyond chance: the whole interval of the difference lies below 0, p at most 0.05."""
    return [comparison for comparison in comparisons if comparison.difference.is_loss]


def refusal(comparisons: Sequence[Comparison]) -> str:
    """Why the candidate may not serve, in a sentence; empty if it may."""
    worse = regressions(comparisons)
    if not worse:
        return ""
    named = "; ".join(
        f"{-each.difference.mean:.3f} {each.measure} on {each.set} by {each.system} ({-each.difference.high:.3f} to "
        f"{-each.difference.low:.3f}, {each.query_count:,} queries)"
        for each in worse
    )
    return f"the candidate is worse than the serving model, and not by chance: it loses {named}"
