"""Correlations of scores with a person's, against scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from winnow_relevance import correlation_interval, pearson, spearman


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_scipy_ties_included(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 6, size=200).astype(float)
    second = first + generator.normal(0, 2, size=200).round()
    assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-12)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_equal_values_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([0, 1, 1, 2], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(22.5))
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)


def test_values_that_are_all_equal_correlate_with_nothing() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(pearson([1, 2, 3], [2, 2, 2]))


def test_the_interval_is_that_of_scipy_and_of_few_pairs_says_nothing() -> None:
    generator = np.random.default_rng(9)
    first = generator.normal(size=80)
    second = first + generator.normal(size=80)
    theirs = stats.pearsonr(first, second).confidence_interval(0.95)
    found = correlation_interval(pearson(first, second), 80)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert correlation_interval(0.9, 3).low == -1
    assert correlation_interval(1.0, 10).high == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1e9 / 3])
def test_equal_values_correlate_with_nothing_whatever_they_are(value: float) -> None:
    # Their mean is not always the value itself, to the last digit.
    assert math.isnan(pearson([value] * 7, [1, 2, 3, 4, 5, 6, 9]))
    assert math.isnan(pearson([1, 2, 3, 4, 5, 6, 9], [value] * 7))
