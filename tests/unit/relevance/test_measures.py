"""Measures of a ranking, against values worked out by hand and properties that must hold."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

import winnow_relevance
from winnow_relevance import ndcg, paired_difference, recall, reciprocal_rank

ids = st.sampled_from([f"d{i}" for i in range(12)])
rankings = st.lists(ids, unique=True, max_size=12)
judgements = st.dictionaries(ids, st.sampled_from([1.0, 2.0, 3.0]), max_size=6)


def test_ndcg_is_what_the_formula_says() -> None:
    # Gains 3, 0, 2 at ranks 1 to 3; the best order would be 3, 2, 1.
    gained = 3 / math.log2(2) + 2 / math.log2(4)
    best = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["a", "x", "b"], {"a": 3, "b": 2, "c": 1}, k=10) == pytest.approx(gained / best, abs=1e-12)


def test_the_cut_limits_ranking_and_ideal_alike() -> None:
    assert ndcg(["x", "a"], {"a": 1}, k=1) == 0
    assert ndcg(["a"], {"a": 1, "b": 1}, k=1) == 1


def test_recall_and_reciprocal_rank_count_to_k() -> None:
    assert recall(["a", "x", "b"], {"a": 1, "b": 1, "c": 1, "z": 0}, k=2) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "a"], {"a": 1}, k=10) == 0.5
    assert reciprocal_rank(["x", "a"], {"a": 1}, k=1) == 0


def test_without_judgements_everything_is_zero() -> None:
    assert ndcg(["a"], {}, k=10) == recall(["a"], {}, k=10) == reciprocal_rank(["a"], {}, k=10) == 0


@given(rankings, judgements, st.integers(1, 12))
def test_every_measure_lies_between_zero_and_one(ranking: list[str], judged: dict[str, float], k: int) -> None:
    for measure in (ndcg, recall, reciprocal_rank):
        assert 0 <= measure(ranking, judged, k=k) <= 1 + 1e-12


@given(judgements.filter(bool), st.integers(1, 12))
def test_the_best_ranking_scores_one(judged: dict[str, float], k: int) -> None:
    best = sorted(judged, key=lambda id_: -judged[id_])
    assert ndcg(best, judged, k=k) == pytest.approx(1, abs=1e-12)


@given(rankings, judgements)
def test_moving_a_relevant_id_up_never_hurts(ranking: list[str], judged: dict[str, float]) -> None:
    for position in range(1, len(ranking)):
        if judged.get(ranking[position], 0) > judged.get(ranking[position - 1], 0):
            better = ranking.copy()
            better[position - 1], better[position] = better[position], better[position - 1]
            assert ndcg(better, judged, k=10) >= ndcg(ranking, judged, k=10)


def test_a_paired_difference_has_its_standard_error() -> None:
    difference = paired_difference([1.0, 0.5, 0.9], [0.5, 0.5, 0.5])
    assert difference.mean == pytest.approx(0.3)
    assert difference.standard_error == pytest.approx(math.sqrt(0.07 / 3), abs=1e-12)
    assert paired_difference([1.0], [0.5]).standard_error == 0


def test_the_public_names_are_these() -> None:
    assert winnow_relevance.__all__ == ["PairedDifference", "ndcg", "paired_difference", "recall", "reciprocal_rank"]
