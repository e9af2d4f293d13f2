"""How sure a mean over queries is, and a difference of two on the same queries.

Values are of shape [queries], or [queries, columns] for several measures or systems at once, all columns with the same
draws. Nothing is assumed of how they are distributed. Draws come from a seeded generator, so results repeat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10_000
"""Draws of a bootstrap or a randomization, unless told otherwise."""
CONFIDENCE = 0.95
"""Of intervals, unless told otherwise."""

Values = NDArray[np.float64]

# Numbers drawn at once: what fits a processor's memory, whatever the number of queries.
_DRAWN_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries, and the bounds between which it is thought to lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one system is ahead of another on the same queries, on average."""

    mean: float
    low: float
    high: float
    p: float
    """How often chance alone makes a mean difference this great, in either direction, if neither is better."""

    @property
    def is_loss(self) -> bool:
        """The whole interval lies below 0, and chance alone makes so much too seldom."""
        return self.high < 0 and self._is_told

    @property
    def is_gain(self) -> bool:
        """The whole interval lies above 0, and chance alone makes so much too seldom."""
        return self.low > 0 and self._is_told

    @property
    def _is_told(self) -> bool:
        # Of fewer than six queries an interval is that of the few values which happen to be there.
        return self.p <= 1 - CONFIDENCE


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much one system is ahead of another on the same queries."""

    mean: float
    standard_error: float
    """Standard error of the mean; 0 for fewer than two queries."""


def paired_difference(ahead: ArrayLike, behind: ArrayLike) -> PairedDifference:
    """Mean and standard error of per-query differences; both of shape [queries], in the same order.

    For where very many are made, and the normal approximation will do; `differences` assumes nothing.
    """
    paired = np.asarray(ahead, dtype=float) - np.asarray(behind, dtype=float)
    if paired.size < 2:
        return PairedDifference(float(paired.mean()) if paired.size else 0.0, 0.0)
    return PairedDifference(float(paired.mean()), float(paired.std(ddof=1) / np.sqrt(paired.size)))


def estimates(
    values: ArrayLike, *, seed: int = 0, rounds: int = ROUNDS, confidence: float = CONFIDENCE
) -> list[Estimate]:
    """The mean of each column with its bootstrap percentile interval (Efron and Tibshirani 1993, chapter 13).

    Of one query there is no telling: its interval is the value itself. Raises ValueError where there are no queries.
    """
    columns = _columns(values)
    lows, highs = _interval(columns, seed=seed, rounds=rounds, confidence=confidence)
    return [Estimate(*map(float, each)) for each in zip(columns.mean(axis=0), lows, highs, strict=True)]


def differences(
    ahead: ArrayLike, behind: ArrayLike, *, seed: int = 0, rounds: int = ROUNDS, confidence: float = CONFIDENCE
) -> list[Difference]:
    """Mean paired difference of each column, `ahead` less `behind`: bootstrap interval and randomization test.

    The same query stands at the same place in both. Raises ValueError where there are no queries.
    """
    paired = _columns(ahead) - _columns(behind)
    lows, highs = _interval(paired, seed=seed, rounds=rounds, confidence=confidence)
    ps = randomization_p(paired, seed=seed, rounds=rounds)
    return [Difference(*map(float, each)) for each in zip(paired.mean(axis=0), lows, highs, ps, strict=True)]


def estimate(values: ArrayLike, *, seed: int = 0, rounds: int = ROUNDS, confidence: float = CONFIDENCE) -> Estimate:
    """`estimates` of one column."""
    return estimates(values, seed=seed, rounds=rounds, confidence=confidence)[0]


def difference(
    ahead: ArrayLike, behind: ArrayLike, *, seed: int = 0, rounds: int = ROUNDS, confidence: float = CONFIDENCE
) -> Difference:
    """`differences` of one column."""
    return differences(ahead, behind, seed=seed, rounds=rounds, confidence=confidence)[0]


def randomization_p(paired: ArrayLike, *, seed: int = 0, rounds: int = ROUNDS) -> Values:
    """Two-sided p of each column's mean, by flipping the sign of each query's difference at random.

    Fisher's randomization test, for retrieval as in Smucker, Allan and Carterette (CIKM 2007). The observed order is
    counted among the draws, so p is never 0 (Phipson and Smyth 2010). Shape [columns].
    """
    columns = _columns(paired)
    observed = np.abs(columns.sum(axis=0))
    as_great = np.zeros(columns.shape[1])
    generator = np.random.default_rng(seed)
    for count in _parts(rounds, len(columns)):
        signs = generator.integers(0, 2, size=(count, len(columns)), dtype=np.int8) * 2.0 - 1.0
        # Sums of the same numbers in another order differ in their last digits.
        as_great += (np.abs(signs @ columns) >= observed - 1e-9).sum(axis=0)
    p: Values = (as_great + 1) / (rounds + 1)
    return p


def queries_needed(spread: float, difference: float, *, power: float = 0.8, confidence: float = CONFIDENCE) -> int:
    """Queries after which a true mean difference of this size is found significant, with that probability.

    `spread` is the standard deviation of the per-query differences. The normal approximation, as Webber, Moffat and
    Zobel (CIKM 2008) use it to size a set of topics. Raises ValueError for a difference of 0.
    """
    if difference == 0:
        raise ValueError("no number of queries shows a difference of 0")
    return max(2, math.ceil((_reach(power, confidence) * spread / difference) ** 2))


def detectable_difference(spread: float, queries: int, *, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The least true mean difference that so many queries show with that probability; the inverse of the above."""
    return _reach(power, confidence) * spread / math.sqrt(queries)


def _reach(power: float, confidence: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - confidence) / 2) + normal.inv_cdf(power)


def _columns(values: ArrayLike) -> Values:
    read = np.asarray(values, dtype=float)
    if read.size == 0 or read.ndim not in (1, 2):
        raise ValueError(f"values of shape [queries] or [queries, columns] are needed, not {list(read.shape)}")
    return read.reshape(len(read), -1)


def _interval(columns: Values, *, seed: int, rounds: int, confidence: float) -> tuple[Values, Values]:
    queries = len(columns)
    generator = np.random.default_rng(seed)
    means = []
    for count in _parts(rounds, queries):
        drawn = generator.integers(0, queries, size=(count, queries))
        drawn += queries * np.arange(count)[:, None]
        # How often each query was drawn in each round: one product then gives the means of all columns.
        weights = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means.append(weights.astype(float) @ columns / queries)
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside], axis=0)
    return low, high


def _parts(rounds: int, queries: int) -> Iterator[int]:
    at_once = max(1, _DRAWN_AT_ONCE // queries)
    for start in range(0, rounds, at_once):
        yield min(at_once, rounds - start)
