"""How well scores agree with a person's: Pearson's and Spearman's correlation, with intervals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from winnow_relevance.significance import CONFIDENCE, Estimate


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's correlation of two sequences of the same length; NaN if all values of one are equal."""
    one, other = (np.asarray(values, dtype=float) for values in (first, second))
    if not (np.ptp(one) and np.ptp(other)):
        # The mean of equal values may differ from them in its last digit.
        return math.nan
    one, other = one - one.mean(), other - other.mean()
    spread = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float((one * other).sum()) / spread if spread else math.nan


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks. NaN if all values of one are equal."""
    return pearson(_ranks(first), _ranks(second))


def correlation_interval(correlation: float, count: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A correlation of `count` pairs with its interval by Fisher's z; for Spearman's an approximation.

    Of fewer than four pairs the interval is all of -1 to 1.
    """
    if count < 4 or math.isnan(correlation):
        return Estimate(correlation, -1.0, 1.0)
    z = math.atanh(min(1 - 1e-12, max(-1 + 1e-12, correlation)))
    reach = NormalDist().inv_cdf(1 - (1 - confidence) / 2) / math.sqrt(count - 3)
    return Estimate(correlation, math.tanh(z - reach), math.tanh(z + reach))


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks
