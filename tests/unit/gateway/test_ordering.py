"""Two stages' scores become one order."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from winnow_gateway.ordering import Mixing, SettledTop, scored_prefix, splice

scores = st.floats(-10, 10, allow_nan=False, width=32)
candidates = st.lists(scores, max_size=30).map(lambda values: sorted(values, reverse=True))


@st.composite
def two_stages(draw: st.DrawFn) -> tuple[list[float], dict[int, float]]:
    retrieval = draw(candidates)
    positions = draw(st.sets(st.integers(0, len(retrieval) - 1))) if retrieval else set()
    return retrieval, {position: draw(scores) for position in positions}


some_mixing = st.builds(
    Mixing, k=st.floats(1, 100), retrieval_weight=st.floats(0, 10), rerank_weight=st.floats(0.125, 10)
)
mixings = st.none() | some_mixing


@given(two_stages(), mixings)
def test_every_candidate_appears_exactly_once(stages: tuple[list[float], dict[int, float]], mixing: Mixing) -> None:
    placed = splice(*stages, mixing=mixing)
    assert sorted(each.position for each in placed) == list(range(len(stages[0])))


@given(two_stages(), mixings)
def test_reranked_candidates_come_first_and_no_score_rises(
    stages: tuple[list[float], dict[int, float]], mixing: Mixing
) -> None:
    placed = splice(*stages, mixing=mixing)
    reranked = [each for each in placed if each.rerank]
    rest = [each for each in placed if not each.rerank]
    assert placed == reranked + rest
    for part in (reranked, rest):
        assert all(left.score >= right.score for left, right in itertools.pairwise(part))


@given(two_stages(), mixings, st.none() | scores)
def test_the_score_never_rises_down_the_whole_list(
    stages: tuple[list[float], dict[int, float]], mixing: Mixing, least: float | None
) -> None:
    placed = splice(*stages, mixing=mixing, min_rerank_score=least)
    assert all(left.score >= right.score for left, right in itertools.pairwise(placed))
    if not any(each.rerank for each in placed):
        assert [each.score for each in placed] == [each.retrieval.score for each in placed]


@given(candidates, st.lists(scores, max_size=30), some_mixing)
def test_of_a_reranked_prefix_a_mixed_score_needs_no_moving(
    retrieval: list[float], rerank: list[float], mixing: Mixing
) -> None:
    prefix = dict(list(enumerate(rerank))[: len(retrieval)])
    for each in splice(retrieval, prefix, mixing=mixing):
        if prefix and each.rerank is None:
            assert each.score == mixing.retrieval_weight / (mixing.k + each.retrieval.rank)


@given(two_stages())
def test_only_scores_without_a_gap_before_them_make_an_order(stages: tuple[list[float], dict[int, float]]) -> None:
    retrieval, rerank = stages
    prefix = scored_prefix(rerank, len(retrieval))
    assert list(prefix) == list(range(len(prefix)))
    assert len(prefix) not in rerank or len(prefix) == len(retrieval)
    assert prefix.items() <= rerank.items()


def test_hits_below_those_that_the_reranker_ordered_go_on_from_its_last_score() -> None:
    placed = splice([0.9, 0.8, 0.7, 0.5], {0: -4.0, 1: 2.0})
    assert [each.position for each in placed] == [1, 0, 2, 3]
    assert [each.score for each in placed] == pytest.approx([2.0, -4.0, -4.0, -4.2])
    low = splice([-0.9, -0.95], {0: 3.0})
    assert [each.score for each in low] == [3.0, -0.95], "nothing is moved that is low enough"


def test_a_top_has_settled_when_it_was_the_same_after_so_many_more_batches() -> None:
    settling = SettledTop(limit=2, batches=2)
    history = [
        ({0: 1.0}, False),
        ({0: 1.0, 1: 2.0}, False),
        ({0: 1.0, 1: 2.0, 2: 0.5}, False),
        ({0: 1.0, 1: 2.0, 2: 0.5, 3: 3.0}, False),
        ({0: 1.0, 1: 2.0, 2: 0.5, 3: 3.0, 4: 0.0}, False),
        ({0: 1.0, 1: 2.0, 2: 0.5, 3: 3.0, 4: 0.0, 5: 0.1}, True),
    ]
    for rerank, settled in history:
        assert settling.settled(splice([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], rerank)) is settled


@given(two_stages())
def test_without_mixing_the_reranker_orders_alone(stages: tuple[list[float], dict[int, float]]) -> None:
    placed = [each for each in splice(*stages) if each.rerank]
    expected = sorted(stages[1], key=lambda position: (-stages[1][position], position))
    assert [each.position for each in placed] == expected
    assert [each.rerank.rank for each in placed if each.rerank] == list(range(1, len(placed) + 1))


@given(two_stages())
def test_a_mixing_with_no_weight_on_retrieval_keeps_the_rerankers_order(
    stages: tuple[list[float], dict[int, float]],
) -> None:
    mixed = splice(*stages, mixing=Mixing(k=10, retrieval_weight=0, rerank_weight=1))
    assert [each.position for each in mixed] == [each.position for each in splice(*stages)]


@given(two_stages(), scores)
def test_a_least_score_judges_only_what_was_reranked(
    stages: tuple[list[float], dict[int, float]], least: float
) -> None:
    kept = {each.position for each in splice(*stages, min_rerank_score=least)}
    assert kept == {i for i in range(len(stages[0])) if i not in stages[1] or stages[1][i] >= least}


def test_ties_keep_the_retrieval_order() -> None:
    placed = splice([0.9, 0.8, 0.7], {0: 1.0, 1: 1.0, 2: 1.0})
    assert [each.position for each in placed] == [0, 1, 2]


def test_mixing_is_weighted_reciprocal_rank_fusion() -> None:
    placed = splice([0.9, 0.8], {0: -1.0, 1: 5.0}, mixing=Mixing(k=10, retrieval_weight=2, rerank_weight=1))
    # Position 0: 2/11 + 1/12; position 1: 2/12 + 1/11.
    assert [each.position for each in placed] == [0, 1]
    assert placed[0].score == 2 / 11 + 1 / 12
    assert placed[1].score == 2 / 12 + 1 / 11
