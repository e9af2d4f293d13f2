"""From scores to probabilities: what made the judgements is learned again, and the error is what it is by hand."""

from __future__ import annotations

import numpy as np
import pytest

from winnow_inference.models.learned import Isotonic, Platt
from winnow_lab.calibrating.calibrators import (
    METHODS,
    Sample,
    calibrate,
    expected_calibration_error,
    isotonic,
    judge,
    platt,
    sample,
    temperature,
)
from winnow_lab.calibrating.rankings import Ranking


def made_up(scale: float, bias: float, *, count: int = 8_000, seed: int = 0) -> Sample:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 3, count)
    relevant = (draw.random(count) < 1 / (1 + np.exp(-(scale * logits + bias)))).astype(float)
    return Sample(logits, relevant, np.full(count, 1 / count), np.arange(count) % 5)


def rankings(scored: Sample, *, domain: str = "d", candidates: int = 50) -> list[Ranking]:
    parts = np.split(np.arange(len(scored.logits)), len(scored.logits) // candidates)
    return [
        Ranking(
            domain=domain,
            query_id=f"{domain}{number}",
            features=np.zeros((len(part), 7)),
            logits=scored.logits[part],
            gains=scored.relevant[part],
            ideal=1.0,
        )
        for number, part in enumerate(parts)
    ]


def test_scale_and_bias_that_made_the_judgements_are_learned_again() -> None:
    found = platt(made_up(0.5, -2.0))
    assert (found.scale, found.bias) == (pytest.approx(0.5, rel=0.1), pytest.approx(-2.0, rel=0.1))
    found = temperature(made_up(0.4, 0.0))
    assert (found.scale, found.bias) == (pytest.approx(0.4, rel=0.1), 0)


def test_an_isotonic_calibration_finds_a_step_and_never_falls() -> None:
    draw = np.random.default_rng(1)
    logits = draw.uniform(-5, 5, 20_000)
    relevant = (draw.random(20_000) < np.where(logits > 1, 0.8, 0.1)).astype(float)
    found = isotonic(Sample(logits, relevant, np.full(20_000, 1 / 20_000), np.arange(20_000) % 5))
    assert found.probability([-3, 0.5, 1.5, 4], "identity") == pytest.approx([0.1, 0.1, 0.8, 0.8], abs=0.05)
    assert len(found.scores) <= 64
    assert isinstance(Isotonic.model_validate(found.model_dump()), Isotonic), "it can be stored"


def test_scores_that_are_all_the_same_have_the_share_of_the_relevant() -> None:
    scored = Sample(np.full(100, 2.0), np.arange(100) % 4 == 0, np.full(100, 0.01), np.arange(100) % 5)
    assert isotonic(scored).probability([-1, 2, 7], "identity") == pytest.approx([0.25, 0.25, 0.25])


def test_the_calibration_error_is_the_mean_distance_over_bins_of_equal_weight() -> None:
    probabilities = np.array([0.1, 0.3, 0.6, 0.8])
    relevant = np.array([0.0, 1.0, 1.0, 1.0])
    even = np.ones(4)
    # Two bins: 0.2 beside 0.5, and 0.7 beside 1.
    assert expected_calibration_error(probabilities, relevant, even, bins=2) == pytest.approx((0.3 + 0.3) / 2)
    assert expected_calibration_error(probabilities, relevant, even, bins=1) == pytest.approx(0.3)
    # The last counts three times: it is a bin of its own.
    weights = np.array([1.0, 1.0, 1.0, 3.0])
    expected = (abs(-0.1 + 0.7 + 0.4 - 0) / 6) + 3 * 0.2 / 6
    assert expected_calibration_error(probabilities, relevant, weights, bins=2) == pytest.approx(expected, abs=1e-9)
    shuffled = np.array([2, 0, 3, 1])
    assert expected_calibration_error(probabilities[shuffled], relevant[shuffled], even, bins=2) == pytest.approx(0.3)


def test_probabilities_that_made_the_judgements_are_hardly_off_and_others_are() -> None:
    scored = made_up(0.5, -2.0)
    right = judge(scored, Platt(scale=0.5, bias=-2.0).probability(scored.logits, "identity"))
    wrong = judge(scored, Platt(scale=1.0).probability(scored.logits, "identity"))
    assert right.expected_calibration_error < 0.02
    assert wrong.expected_calibration_error > 0.1
    assert right.log_loss < wrong.log_loss
    assert right.brier_score < wrong.brier_score


def test_the_simplest_method_that_is_hardly_worse_is_taken() -> None:
    assert list(METHODS) == ["temperature", "platt", "isotonic"]
    assert calibrate(rankings(made_up(0.4, 0.0))).method == "temperature"
    found = calibrate(rankings(made_up(0.5, -2.0)))
    assert found.method == "platt"
    assert found.after == found.methods["platt"]
    assert found.after.expected_calibration_error < 0.02 < found.before.expected_calibration_error
    assert found.candidates == 8_000
    stepped = made_up(0.5, -2.0)
    relevant = (np.random.default_rng(2).random(8_000) < np.where(stepped.logits > 1, 0.8, 0.1)).astype(float)
    assert calibrate(rankings(Sample(stepped.logits, relevant, stepped.weights, stepped.folds))).method == "isotonic"


def test_every_domain_counts_the_same_however_many_candidates_it_has() -> None:
    common = rankings(made_up(0.5, 1.0, count=500), domain="few")
    rare = rankings(made_up(0.5, -4.0, count=10_000), domain="many")
    scored = sample([*common, *rare])
    assert scored.weights[:500].sum() == pytest.approx(0.5)
    assert scored.weights.sum() == pytest.approx(1.0)
    half = scored.only(np.arange(10_500) < 500)
    assert half.weights.sum() == pytest.approx(1.0)
    found = calibrate([*common, *rare])
    shares = [np.mean(np.concatenate([each.gains for each in part])) for part in (common, rare)]
    assert found.relevant_share == pytest.approx(np.mean(shares))
