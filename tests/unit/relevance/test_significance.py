"""How sure means and their differences are: known answers, coverage, and that results repeat."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest

from winnow_relevance import (
    detectable_difference,
    difference,
    differences,
    estimate,
    estimates,
    paired_difference,
    queries_needed,
    randomization_p,
)


def test_the_interval_of_a_mean_is_near_the_one_by_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, size=400)
    found = estimate(values)
    reach = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.1 * reach)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    samples = [generator.beta(2, 1, size=60) for _ in range(300)]
    inside = sum(found.low <= 2 / 3 <= found.high for found in (estimate(one, rounds=500) for one in samples))
    assert 0.90 <= inside / len(samples) <= 0.99


def test_a_randomization_test_comes_to_the_exact_p() -> None:
    paired = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.2, -0.02, 0.15])
    every = [abs(np.dot(signs, paired)) for signs in itertools.product((-1, 1), repeat=len(paired))]
    exact = np.mean([value >= abs(paired.sum()) - 1e-9 for value in every])
    assert randomization_p(paired, rounds=40_000)[0] == pytest.approx(exact, abs=0.01)


def test_no_difference_at_all_is_by_chance_for_certain() -> None:
    found = difference([0.5, 0.7, 0.1], [0.5, 0.7, 0.1])
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert not found.is_gain
    assert not found.is_loss


def test_a_clear_difference_is_a_gain_one_way_and_a_loss_the_other() -> None:
    generator = np.random.default_rng(3)
    behind = generator.uniform(0, 0.8, size=100)
    ahead = behind + generator.normal(0.05, 0.05, size=100)
    gain, loss = difference(ahead, behind), difference(behind, ahead)
    assert gain.is_gain
    assert loss.is_loss
    assert gain.p == loss.p < 0.001
    assert gain.mean == pytest.approx(-loss.mean)


def test_chance_alone_is_rarely_significant() -> None:
    generator = np.random.default_rng(4)
    paired = generator.normal(0, 1, size=(50, 400))
    assert 0.02 <= np.mean(randomization_p(paired, rounds=2000) < 0.05) <= 0.09


def test_columns_are_measured_as_if_each_stood_alone() -> None:
    generator = np.random.default_rng(5)
    ahead, behind = generator.random((30, 3)), generator.random((30, 3))
    together, means = differences(ahead, behind, rounds=200), estimates(ahead, rounds=200)
    for column in range(3):
        alone = difference(ahead[:, column], behind[:, column], rounds=200)
        assert astuple(together[column]) == pytest.approx(astuple(alone), abs=1e-12)
        assert astuple(means[column]) == pytest.approx(astuple(estimate(ahead[:, column], rounds=200)), abs=1e-12)


def test_many_queries_are_drawn_in_parts_and_one_query_says_nothing_of_chance() -> None:
    values = np.random.default_rng(6).random(300_000)
    found = estimate(values, rounds=20)
    assert found.low < found.mean < found.high
    one = difference([0.9], [0.4])
    assert (one.low, one.high, one.p) == (0.5, 0.5, 1.0)


def test_without_queries_there_is_nothing_to_say() -> None:
    with pytest.raises(ValueError, match="shape"):
        estimate([])


def test_the_queries_that_are_needed_show_the_difference_with_the_power_that_was_asked_for() -> None:
    needed = queries_needed(0.3, 0.05)
    assert needed == 283  # (1.960 + 0.842)² × 0.3² / 0.05², rounded up
    assert detectable_difference(0.3, needed) == pytest.approx(0.05, rel=0.01)
    generator = np.random.default_rng(7)
    paired = generator.normal(0.05, 0.3, size=(needed, 300))
    assert 0.7 <= np.mean(randomization_p(paired, rounds=500) < 0.05) <= 0.9
    with pytest.raises(ValueError, match="0"):
        queries_needed(0.3, 0)


def test_a_paired_difference_has_its_standard_error() -> None:
    found = paired_difference([1.0, 0.5, 0.9], [0.5, 0.5, 0.5])
    assert found.mean == pytest.approx(0.3)
    assert found.standard_error == pytest.approx(math.sqrt(0.07 / 3), abs=1e-12)
    assert paired_difference([1.0], [0.5]).standard_error == 0


@pytest.mark.parametrize("queries", [1, 2, 3, 4, 5])
def test_no_difference_of_so_few_queries_is_told_from_chance(queries: int) -> None:
    # Whatever they are, one of 2^n equally likely orders of signs makes them: p is never below 2 / 32.
    found = difference([0.9] * queries, [0.1] * queries)
    assert found.low > 0
    assert found.p > 0.05
    assert not found.is_gain
    assert not difference([0.1] * queries, [0.9] * queries).is_loss
    assert difference([0.9] * 8, [0.1] * 8).is_gain


def test_differences_of_few_queries_that_differ_by_chance_alone_are_seldom_called_significant() -> None:
    generator = np.random.default_rng(4)
    alone = [difference(generator.normal(size=4), np.zeros(4), rounds=500) for _ in range(200)]
    assert not any(found.is_gain or found.is_loss for found in alone)
    assert sum(found.low > 0 or found.high < 0 for found in alone) > 10, "intervals alone would have called some so"
