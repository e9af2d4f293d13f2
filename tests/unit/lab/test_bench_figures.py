"""Arithmetic of the benchmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from winnow_lab.bench_figures import (
    arrivals,
    cosines,
    growth,
    lag_verdict,
    padding_share,
    percentiles,
    range_of,
    turns,
)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 201)]
    assert percentiles(values[::-1]) == {"p50": 100.0, "p95": 190.0, "p99": 198.0, "worst": 200.0}
    assert percentiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "worst": 7.0}


def test_of_no_values_there_are_no_percentiles() -> None:
    assert percentiles([]) == {}


def test_rounds_are_summed_up_by_their_median_and_range() -> None:
    found = range_of([3.0, 1.0, 20.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 20.0)


def test_everyone_has_one_turn_a_round_and_each_begins_a_round() -> None:
    rounds = [turns(3, number) for number in range(3)]
    assert rounds == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_cosines_ignore_length_and_see_direction() -> None:
    one = np.array([[1, 0], [0, 2], [1, 1]], dtype=np.float32)
    other = np.array([[5, 0], [0, -1], [1, 0]], dtype=np.float32)
    # Float32 carries seven digits.
    assert cosines(one, other) == pytest.approx([1, -1, math.sqrt(0.5)], abs=1e-6)


def test_padding_is_what_was_computed_for_nothing() -> None:
    assert padding_share([(2, 10, 15), (1, 5, 5)]) == pytest.approx(5 / 25)
    assert padding_share([]) == 0.0


def test_an_open_loop_keeps_its_rate() -> None:
    times = arrivals(50, 2)
    assert len(times) == 100
    assert times[0] == 0
    assert times[-1] == pytest.approx(1.98)
    assert np.diff(times) == pytest.approx(0.02)


def test_a_load_generator_lags_if_one_call_in_a_hundred_is_late() -> None:
    punctual = [0.001] * 995 + [0.5] * 5
    assert lag_verdict(punctual) == {"p50_ms": 1.0, "p99_ms": 1.0, "lagged": False}
    assert lag_verdict([0.001] * 90 + [0.5] * 10)["lagged"] is True


def test_growth_is_what_comes_after_the_first_minute() -> None:
    # It loads for a minute, then grows by a MiB a minute.
    samples = [(float(at), 100.0 + (at * 5 if at < 60 else 300 + (at - 60) / 60)) for at in range(0, 601, 2)]
    found = growth(samples)
    assert found is not None
    assert found["from_mib"] == pytest.approx(400.4, abs=0.1)
    assert found["to_mib"] == pytest.approx(408.6, abs=0.1)
    assert found["growth_mib"] == pytest.approx(8.1, abs=0.15)
    assert found["mib_per_minute"] == pytest.approx(1.0, abs=0.01)


def test_one_high_sample_is_no_growth() -> None:
    samples = [(float(at), 500.0) for at in range(0, 300, 2)]
    samples[-1] = (298.0, 900.0)
    found = growth(samples)
    assert found is not None
    assert found["growth_mib"] == 0.0


def test_a_short_run_gives_a_quarter_of_itself_to_warming_up() -> None:
    found = growth([(0.0, 10.0), (5.0, 90.0), (10.0, 90.0), (15.0, 90.0), (20.0, 90.0)])
    assert found is not None
    assert found["growth_mib"] == 0.0


def test_growth_of_too_few_samples_is_unknown() -> None:
    assert growth([(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]) is None
