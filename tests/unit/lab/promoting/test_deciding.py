"""A candidate that is worse beyond chance on any set is refused; one that is not may serve."""

from __future__ import annotations

import math

import numpy as np
import pytest

from winnow_lab.promoting.deciding import compare, refusal, regressions


def compared(name: str, *, gain: float, noise: float = 0.05, queries: int = 100):  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(1)
    serving = generator.uniform(0.3, 0.9, size=queries)
    changes = generator.normal(0, noise, size=queries)
    return compare(name, "dense", "nDCG@10", serving=serving, candidate=serving + changes - changes.mean() + gain)


def test_a_loss_beyond_its_interval_on_one_set_is_enough() -> None:
    comparisons = [compared("mine test", gain=0.10), compared("squad test", gain=-0.03)]
    assert [each.set for each in regressions(comparisons)] == ["squad test"]
    said = refusal(comparisons)
    assert "it loses 0.030 nDCG@10 on squad test by dense" in said
    assert "mine" not in said


@pytest.mark.parametrize("gain", [-0.002, 0.0, 0.05])
def test_a_loss_that_may_be_chance_is_none_and_a_gain_least_of_all(gain: float) -> None:
    assert refusal([compared("mine test", gain=gain)]) == ""


def test_it_is_known_what_loss_so_many_queries_would_have_shown() -> None:
    few, many = compared("a", gain=0.0, queries=25), compared("a", gain=0.0, queries=400)
    assert few.detectable > 3 * many.detectable > 0
    assert (few.query_count, many.query_count) == (25, 400)


def test_one_query_would_show_no_loss_however_large() -> None:
    compared = compare("mine test", "dense", "nDCG@10", serving=np.array([0.9]), candidate=np.array([0.1]))
    assert compared.detectable == math.inf
    assert refusal([compared]) == ""
