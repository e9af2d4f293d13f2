"""Measures of a ranking, against values worked out by hand and properties that must hold."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from winnow_relevance import average_precision, best_ndcg, ndcg, precision, recall, reciprocal_rank

ids = st.sampled_from([f"d{i}" for i in range(12)])
rankings = st.lists(ids, unique=True, max_size=12)
judgements = st.dictionaries(ids, st.sampled_from([1.0, 2.0, 3.0]), max_size=6)
MEASURES = (ndcg, best_ndcg, recall, reciprocal_rank, precision, average_precision)


def test_ndcg_is_what_the_formula_says() -> None:
    # Gains 3, 0, 2 at ranks 1 to 3; the best order would be 3, 2, 1.
    gained = 3 / math.log2(2) + 2 / math.log2(4)
    best = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["a", "x", "b"], {"a": 3, "b": 2, "c": 1}, k=10) == pytest.approx(gained / best, abs=1e-12)


def test_the_ceiling_is_the_best_order_of_what_was_found() -> None:
    found = 3 / math.log2(2) + 2 / math.log2(3)
    best = found + 1 / math.log2(4)
    assert best_ndcg(["b", "x", "a"], {"a": 3, "b": 2, "c": 1}, k=10) == pytest.approx(found / best, abs=1e-12)


def test_the_cut_limits_ranking_and_ideal_alike() -> None:
    assert ndcg(["x", "a"], {"a": 1}, k=1) == 0
    assert ndcg(["a"], {"a": 1, "b": 1}, k=1) == 1


def test_recall_precision_and_reciprocal_rank_count_to_k() -> None:
    judged = {"a": 1, "b": 1, "c": 1, "z": 0}
    assert recall(["a", "x", "b"], judged, k=2) == pytest.approx(1 / 3)
    assert precision(["a", "z", "b"], judged, k=2) == 0.5
    assert precision(["a"], judged, k=4) == 0.25
    assert reciprocal_rank(["x", "a"], {"a": 1}, k=10) == 0.5
    assert reciprocal_rank(["x", "a"], {"a": 1}, k=1) == 0


def test_average_precision_counts_what_was_not_found() -> None:
    # Precision 1 at rank 1, 2/3 at rank 3; the third relevant one is missing.
    assert average_precision(["a", "x", "b"], {"a": 1, "b": 2, "c": 1}, k=10) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(["a", "x", "b"], {"a": 1, "b": 2, "c": 1}, k=2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("measure", MEASURES)
def test_where_nothing_is_relevant_everything_is_zero(measure) -> None:  # type: ignore[no-untyped-def]
    assert measure(["a"], {}, k=10) == measure(["a"], {"a": 0.0}, k=10) == measure([], {"a": 1.0}, k=10) == 0


@given(rankings, judgements, st.integers(1, 12))
def test_every_measure_lies_between_zero_and_one(ranking: list[str], judged: dict[str, float], k: int) -> None:
    for measure in MEASURES:
        assert 0 <= measure(ranking, judged, k=k) <= 1 + 1e-12
    assert ndcg(ranking, judged, k=k) <= best_ndcg(ranking, judged, k=k) + 1e-12


@given(judgements.filter(bool), st.integers(1, 12))
def test_the_best_ranking_scores_one(judged: dict[str, float], k: int) -> None:
    best = sorted(judged, key=lambda id_: -judged[id_])
    assert ndcg(best, judged, k=k) == pytest.approx(1, abs=1e-12)
    assert average_precision(best, judged, k=len(best)) == pytest.approx(1, abs=1e-12)


@given(rankings, judgements)
def test_moving_a_relevant_id_up_never_hurts(ranking: list[str], judged: dict[str, float]) -> None:
    for position in range(1, len(ranking)):
        if judged.get(ranking[position], 0) > judged.get(ranking[position - 1], 0):
            better = ranking.copy()
            better[position - 1], better[position] = better[position], better[position - 1]
            assert ndcg(better, judged, k=10) >= ndcg(ranking, judged, k=10)
            assert average_precision(better, judged, k=12) >= average_precision(ranking, judged, k=12)
