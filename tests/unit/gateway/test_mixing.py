"""Both stages' scores, mixed by learned weights."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from winnow_gateway.candidate_order import CandidateOrder, chosen_mixing, needs_model
from winnow_gateway.documents import Document
from winnow_gateway.mixing import (
    FEATURES,
    ScoreMixing,
    first_stage_features,
    log_odds,
    mixed_scores,
    rerank_features,
)
from winnow_gateway.ordering import Mixing, StagePlace
from winnow_gateway.planning import RetrievalKind
from winnow_gateway.ports import Candidate, RerankerModel
from winnow_gateway.queries import RankingPolicy, SearchQuery
from winnow_rpc.faults import FailedPrecondition

places = st.none() | st.builds(StagePlace, st.floats(-1e3, 1e3, width=32), st.integers(1, 500))
orders = st.lists(st.tuples(places, places), max_size=30)
weights = st.floats(-5, 5)
mixings = st.builds(
    ScoreMixing,
    rerank=st.floats(0, 5),
    rerank_sigmoid=st.floats(0.125, 5),
    **dict.fromkeys(FEATURES[2:], weights),
)


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[Candidate], dict[int, float]]:
    found = draw(orders)
    scores = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=len(found), max_size=len(found))), reverse=True)
    candidates = [
        Candidate(Document(str(position), text=""), score, dense=dense, lexical=lexical)
        for position, (score, (dense, lexical)) in enumerate(zip(scores, found, strict=True))
    ]
    depth = draw(st.integers(0, len(candidates)))
    return candidates, {position: draw(st.floats(0, 1, width=32)) for position in range(depth)}


def ordered(candidates: list[Candidate], mixing: ScoreMixing, *, least: float | None = None) -> CandidateOrder:
    order = CandidateOrder(candidates, min_rerank_score=least)
    order.mix(mixing, RerankerModel("m", "c" * 64, None, activation="sigmoid"))
    return order


def test_features_are_named_as_the_weights_and_stand_in_their_order() -> None:
    dense = [StagePlace(0.9, 1), None, StagePlace(0.5, 2)]
    lexical = [None, StagePlace(7.0, 1), None]
    made = np.hstack((rerank_features([0.5, 0.5, 0.5], "sigmoid"), first_stage_features(dense, lexical)))
    columns = dict(zip(FEATURES, made.T, strict=True))
    assert set(columns) == set(ScoreMixing.__slots__)
    assert columns["rerank"] == pytest.approx([0, 0, 0])
    assert columns["rerank_sigmoid"] == pytest.approx([0.5, 0.5, 0.5])
    # 0.9, and twice the least: 0.5. Their mean is 0.6333, their deviation 0.1886.
    assert columns["dense"] == pytest.approx([math.sqrt(2), -math.sqrt(0.5), -math.sqrt(0.5)])
    assert columns["lexical"] == pytest.approx([0, 0, 0])
    assert columns["retrieval_rank"] == pytest.approx([10 / 11, 10 / 12, 10 / 13])
    assert columns["dense_absent"] == pytest.approx([0, 1, 0])
    assert columns["lexical_absent"] == pytest.approx([1, 0, 1])


@given(orders)
def test_features_are_finite_and_standardised(found: list[tuple[StagePlace | None, StagePlace | None]]) -> None:
    made = first_stage_features([dense for dense, _ in found], [lexical for _, lexical in found])
    assert made.shape == (len(found), len(FEATURES) - 2)
    assert np.isfinite(made).all()
    for column in made[:, :2].T:
        assert not column.any() or (abs(column.mean()) < 1e-6 and column.std() == pytest.approx(1))


def test_log_odds_end_where_float32_does() -> None:
    assert log_odds([0.0, 1.0], "sigmoid") == pytest.approx([-16.118, 16.118], abs=1e-3)
    assert list(log_odds([-40.0, 7.5], "identity")) == [-40.0, 7.5]


def test_mixed_scores_are_the_sum_of_weighted_features() -> None:
    features = first_stage_features([StagePlace(2.0, 1), StagePlace(1.0, 2)], [None, None])
    mixing = ScoreMixing(rerank=2, dense=0.5, retrieval_rank=1)
    found = mixed_scores(features, {0: -1.0, 1: 3.0}, mixing=mixing, activation="identity")
    assert found == pytest.approx({0: -2 + 0.5 + 10 / 11, 1: 6 - 0.5 + 10 / 12})


@given(searches(), mixings)
def test_what_is_not_reranked_yet_changes_nothing_of_the_others_order(
    search: tuple[list[Candidate], dict[int, float]], mixing: ScoreMixing
) -> None:
    candidates, scores = search
    order = ordered(candidates, mixing)
    last: list[int] = []
    for depth in range(len(scores) + 1):
        placed = order.place(dict(itertools.islice(scores.items(), depth)))
        reranked = [each.position for each in placed if each.rerank]
        assert [position for position in reranked if position < depth - 1] == last
        assert [each.position for each in placed if not each.rerank] == list(range(depth, len(candidates)))
        last = reranked


@given(searches(), mixings, st.none() | st.floats(0, 1))
def test_the_score_never_rises_down_the_list(
    search: tuple[list[Candidate], dict[int, float]], mixing: ScoreMixing, least: float | None
) -> None:
    candidates, scores = search
    placed = ordered(candidates, mixing, least=least).place(scores)
    assert all(left.score >= right.score for left, right in itertools.pairwise(placed))
    kept = {
        position for position in range(len(candidates)) if position not in scores or scores[position] >= (least or 0)
    }
    assert {each.position for each in placed} == kept


@given(searches())
def test_with_weight_on_the_reranker_alone_it_orders_alone(search: tuple[list[Candidate], dict[int, float]]) -> None:
    candidates, scores = search
    alone = CandidateOrder(candidates)
    for mixing in (ScoreMixing(rerank=1.0), ScoreMixing(rerank_sigmoid=1.0)):
        mixed = [each.position for each in ordered(candidates, mixing).place(scores) if each.rerank]
        clipped = {position: min(max(score, 1e-7), 1 - 1e-7) for position, score in scores.items()}
        expected = [each.position for each in alone.place(clipped) if each.rerank]
        by_score = [[clipped[position] for position in order] for order in (mixed, expected)]
        assert by_score[0] == pytest.approx(by_score[1], abs=1e-9)


def test_five_hundred_candidates_are_mixed_by_their_own_features() -> None:
    candidates = [
        Candidate(Document(str(n), text=""), -n, dense=StagePlace(float(n), 500 - n), lexical=None) for n in range(500)
    ]
    placed = ordered(candidates, ScoreMixing(rerank=1e-9, dense=1)).place(dict.fromkeys(range(500), 0.5))
    assert [each.position for each in placed] == list(reversed(range(500)))


HYBRID = ScoreMixing(rerank=1, dense=2)
RANKS = Mixing(k=10)


@pytest.mark.parametrize(
    ("policy", "given", "recommended", "expected"),
    [
        (RankingPolicy.RECOMMENDED, None, ({"hybrid": HYBRID}, RANKS), HYBRID),
        (RankingPolicy.RECOMMENDED, None, ({"dense": HYBRID}, RANKS), RANKS),
        (RankingPolicy.RECOMMENDED, None, ({"dense": HYBRID}, None), None),
        (RankingPolicy.RECOMMENDED, Mixing(k=2), ({}, RANKS), RANKS),
        (RankingPolicy.MIXED, None, ({"hybrid": HYBRID}, None), HYBRID),
        (RankingPolicy.MIXED, None, ({}, RANKS), RANKS),
        (RankingPolicy.MIXED, Mixing(k=2), ({"hybrid": HYBRID}, RANKS), Mixing(k=2)),
        (RankingPolicy.RERANKER, Mixing(k=2), ({"hybrid": HYBRID}, RANKS), None),
    ],
)
def test_a_request_may_say_otherwise_than_the_model(
    policy: RankingPolicy,
    given: Mixing | None,
    recommended: tuple[dict[str, ScoreMixing], Mixing | None],
    expected: Mixing | ScoreMixing | None,
) -> None:
    query = SearchQuery(collection="docs", query="q", policy=policy, mixing=given)
    model = RerankerModel("m", "c" * 64, recommended[1], score_mixings=recommended[0])
    asked = model if needs_model(query) else None
    assert chosen_mixing(query, asked, RetrievalKind.HYBRID) == expected


def test_a_mixing_that_nobody_gives_is_refused() -> None:
    query = SearchQuery(collection="docs", query="q", policy=RankingPolicy.MIXED)
    model = RerankerModel("m", "c" * 64, None, score_mixings={"dense": HYBRID})
    with pytest.raises(FailedPrecondition) as refused:
        chosen_mixing(query, model, RetrievalKind.HYBRID)
    assert refused.value.reason == "NO_MIXING"
