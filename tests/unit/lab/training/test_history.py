"""How a training went, read from what the trainer logged, and shown."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from winnow_lab.training.finishing import Trained
from winnow_lab.training.history import History, Point, read_log, resolve_metric, sparkline
from winnow_lab.training.presenting import as_json, show
from winnow_lab.training.settings import Architecture

LOG = [
    {"step": 0, "eval_dev_ndcg@10": 0.5, "eval_dev_base_ndcg@10": 0.4, "eval_metric": 0.5, "eval_runtime": 1.0},
    {"step": 1, "loss": 2.0, "learning_rate": 1e-5},
    {"step": 2, "eval_dev_ndcg@10": 0.7, "eval_dev_base_ndcg@10": 0.4, "eval_metric": 0.7, "eval_runtime": 1.0},
    {"step": 3, "loss": 1.0},
    {"step": 4, "eval_dev_ndcg@10": 0.6, "eval_dev_base_ndcg@10": 0.4, "eval_metric": 0.6, "eval_runtime": 1.0},
    {"step": 4, "train_loss": 1.5},
]


def test_a_log_holds_losses_and_metrics() -> None:
    history = read_log(LOG, wanted="ndcg@10")
    assert history.metric == "dev_ndcg@10"
    assert history.losses == [Point(1, 2.0), Point(3, 1.0)]
    assert (history.first, history.best, history.last) == (Point(0, 0.5), Point(2, 0.7), Point(4, 0.6))
    assert history.evaluations[0] == {"step": 0, "dev_ndcg@10": 0.5, "dev_base_ndcg@10": 0.4}


def test_a_log_without_evaluations_has_no_metric() -> None:
    history = read_log(LOG[1:2], wanted="ndcg@10")
    assert (history.metric, history.first, history.best, history.last) == ("", None, None, None)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("dev_ndcg@10", "dev_ndcg@10"),
        ("ndcg@10", "dev_ndcg@10"),
        ("base_ndcg@10", None),
        ("mrr", None),
        ("spearman", None),
        ("one_spearman", "one_spearman"),
    ],
)
def test_a_metric_is_found_by_the_end_of_its_name(wanted: str, meant: str | None) -> None:
    names = ["dev_ndcg@10", "dev_base_ndcg@10", "one_spearman", "other_spearman"]
    assert resolve_metric(wanted, names) == meant


def test_a_curve_is_drawn_in_one_line() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline([float(at) for at in range(1000)], width=40)) == 40


def trained(history: History) -> Trained:
    return Trained(out=Path("m"), history=history, examples=9, steps=4, seconds=2.0, pairs_per_second=18.0)


def shown(history: History) -> str:
    stream = StringIO()
    show(trained(history), Architecture.CROSS_ENCODER, Console(file=stream, width=100))
    return stream.getvalue()


def test_a_person_sees_before_best_and_end_and_how_to_serve_the_model() -> None:
    text = shown(read_log(LOG, wanted="ndcg@10"))
    for part in ("before training", "0.5000", "best, kept", "0.7000", "at the end", "0.6000", "▁█▅"):
        assert part in text
    assert "winnow up --reranker-model m" in text
    assert "nothing better" not in text


def test_a_training_that_made_nothing_better_is_said() -> None:
    worse = History(metric="m", metrics=[Point(0, 0.9), Point(2, 0.8)], losses=[], evaluations=[])
    assert "Training made nothing better" in shown(worse)


def test_a_machine_gets_the_same() -> None:
    made = as_json(trained(read_log(LOG, wanted="ndcg@10")), Architecture.BI_ENCODER)
    assert made["metric"] == "dev_ndcg@10"
    assert made["best"] == Point(2, 0.7)
    assert made["curve"] == "m/training/curve.png"


@pytest.mark.parametrize(
    ("values", "best"), [([math.nan, 0.5, 0.4], 2), ([0.5, math.nan, 0.6], 3), ([math.nan] * 3, None)]
)
def test_what_is_no_number_is_never_the_best(values: list[float], best: int | None) -> None:
    points = [Point(step, value) for step, value in enumerate([0.9, *values])]
    history = History(metric="dev_spearman", metrics=points, losses=[], evaluations=[])
    assert (history.best and history.best.step) == best


def test_a_curve_has_a_gap_where_nothing_was_a_number() -> None:
    assert sparkline([0.0, math.nan, 1.0]) == "▁ █"
    assert sparkline([math.nan] * 3) == "   "
