"""Weights that are known are learned again, and what they are worth is judged on queries that taught nothing."""

from __future__ import annotations

import numpy as np
import pytest

from winnow_gateway.mixing import FEATURES, ScoreMixing
from winnow_gateway.ordering import Mixing, StagePlace
from winnow_lab.calibrating.candidates import Candidate, JudgedCandidates
from winnow_lab.calibrating.fitting import FAMILIES, features_of, fit, mixed
from winnow_lab.calibrating.rankings import KINDS, Ranking, by_domain, ranking
from winnow_lab.calibrating.validating import (
    LEARNED,
    LEFT_OUT,
    RANKS,
    RERANKER,
    RETRIEVAL,
    Figure,
    check,
    compare,
    learn,
    relative_gain,
)
from winnow_relevance import ndcg

RANKS_K10 = Mixing(k=10)


def made_up(
    weights: ScoreMixing, *, domain: str = "d", queries: int = 300, candidates: int = 30, seed: int = 0
) -> list[Ranking]:
    """Queries of which one candidate each is relevant, drawn by the softmax of these weights."""
    draw = np.random.default_rng(seed)
    values = np.array([getattr(weights, name) for name in FEATURES])
    made = []
    for number in range(queries):
        logits = draw.normal(0, 2, candidates)
        first_stage = np.stack(
            (
                draw.normal(size=candidates),
                draw.normal(size=candidates),
                10 / (10 + np.arange(1, candidates + 1)),
                *(draw.random((2, candidates)) < 0.3),
            ),
            axis=1,
        )
        features = np.hstack((logits[:, None], 1 / (1 + np.exp(-logits[:, None])), first_stage))
        scores = features @ values
        chances = np.exp(scores - scores.max())
        gains = np.zeros(candidates)
        gains[draw.choice(candidates, p=chances / chances.sum())] = 1.0
        made.append(
            Ranking(
                domain=domain, query_id=f"{domain}{number}", features=features, logits=logits, gains=gains, ideal=1.0
            )
        )
    return made


def test_weights_that_made_the_judgements_are_learned_again() -> None:
    weights = ScoreMixing(rerank=0.8, dense=1.2, lexical=-0.7, retrieval_rank=2.0, dense_absent=-1.5)
    features = ("rerank", "dense", "lexical", "retrieval_rank", "dense_absent")
    found = fit(made_up(weights, queries=2000), features, penalty=1e-4)
    for name in features:
        assert getattr(found, name) == pytest.approx(getattr(weights, name), rel=0.15, abs=0.15), name
    assert (found.rerank_sigmoid, found.lexical_absent) == (0, 0)


def test_a_reranker_that_is_wrong_gets_no_weight_to_speak_of_but_breaks_ties() -> None:
    found = fit(made_up(ScoreMixing(rerank=-1.0, dense=1.0)), ("rerank", "dense"))
    assert 0 < found.rerank < 1e-3
    assert found.dense > 0.3


def test_every_domain_counts_the_same_however_many_queries_it_has() -> None:
    first = made_up(ScoreMixing(rerank=1.0), domain="a", queries=40)
    second = made_up(ScoreMixing(rerank=0.01, dense=1.0), domain="b", queries=40, seed=1)
    again = [each for each in second for _ in range(5)]
    once, five_times = (fit([*first, *more], ("rerank", "dense")) for more in (second, again))
    assert five_times.rerank == pytest.approx(once.rerank, rel=1e-3)
    assert five_times.dense == pytest.approx(once.dense, rel=1e-3)


def test_queries_without_a_relevant_candidate_teach_nothing() -> None:
    queries = made_up(ScoreMixing(rerank=1.0), queries=50)
    empty = Ranking(
        domain="d", query_id="none", features=np.ones((3, 7)), logits=np.ones(3), gains=np.zeros(3), ideal=1.0
    )
    assert fit([*queries, empty], ("rerank", "dense")) == fit(queries, ("rerank", "dense"))


def test_each_family_has_one_feature_of_the_reranker_and_those_of_the_orders_that_were_asked() -> None:
    for family in FAMILIES:
        for kind in KINDS:
            features = features_of(family, kind)
            assert sum(name.startswith("rerank") for name in features) == 1
            assert any(name.startswith("dense") for name in features) == (kind != "lexical")
            assert any(name.startswith("lexical") for name in features) == (kind != "dense")
    assert features_of("log-odds and places", "dense") == ("rerank", "dense", "retrieval_rank")


def query_of(*candidates: tuple[float, int | None, int | None], judged: dict[str, float]) -> JudgedCandidates:
    def place(rank: int | None) -> StagePlace | None:
        return StagePlace(1 / rank, rank) if rank else None

    return JudgedCandidates(
        query_id="q",
        query="q",
        judgements=judged,
        candidates=tuple(
            Candidate(id=f"d{at}", rerank=rerank, dense=place(dense), lexical=place(lexical))
            for at, (rerank, dense, lexical) in enumerate(candidates)
        ),
    )


def test_a_query_as_each_kind_of_retrieval_would_have_it() -> None:
    query = query_of((0.5, 2, None), (0.9, 1, 3), (0.1, None, 1), judged={"d0": 1.0, "d2": 2.0, "elsewhere": 3.0})
    hybrid, dense, lexical = (ranking(query, domain="d", kind=kind, activation="sigmoid") for kind in KINDS)
    assert hybrid
    assert dense
    assert lexical
    assert list(hybrid.gains) == [1, 0, 2]
    assert list(dense.gains) == [0, 1], "by its own ranks"
    assert list(lexical.gains) == [2, 0]
    column = FEATURES.index("dense_absent")
    assert list(hybrid.features[:, column]) == [0, 0, 1]
    assert dense.logits == pytest.approx([np.log(9), 0])
    # What was not found counts in the best order too.
    judged = {"d0": 1.0, "d2": 2.0, "elsewhere": 3.0}
    assert hybrid.ndcg(hybrid.retrieval_scores()) == pytest.approx(ndcg(["d0", "d1", "d2"], judged, k=10))
    assert hybrid.ndcg(hybrid.logits) == pytest.approx(ndcg(["d1", "d0", "d2"], judged, k=10))


def test_a_query_of_which_an_order_found_nothing_or_nothing_is_judged_is_left_out() -> None:
    unfound = query_of((0.5, 1, None), judged={"d0": 1.0})
    assert ranking(unfound, domain="d", kind="lexical", activation="sigmoid") is None
    assert ranking(unfound, domain="d", kind="dense", activation="sigmoid")
    unjudged = query_of((0.5, 1, None), judged={"d0": 0.0})
    assert ranking(unjudged, domain="d", kind="hybrid", activation="sigmoid") is None


def test_what_is_mixed_here_is_what_the_gateway_mixes() -> None:
    query = query_of((0.5, 2, None), (0.9, 1, 3), (0.1, None, 1), judged={"d0": 1.0})
    made = ranking(query, domain="d", kind="hybrid", activation="sigmoid")
    assert made
    assert made.rank_mixed_scores(RANKS_K10) == pytest.approx([1 / 11 + 1 / 12, 1 / 12 + 1 / 11, 1 / 13 + 1 / 13])
    mixing = ScoreMixing(rerank=2, retrieval_rank=1, lexical_absent=-3)
    expected = [0 + 10 / 11 - 3, 2 * np.log(9) + 10 / 12, 2 * np.log(1 / 9) + 10 / 13]
    assert mixed(made, mixing) == pytest.approx(expected)


def test_gains_are_differences_query_by_query_to_retrieval() -> None:
    queries = [*made_up(ScoreMixing(rerank=3), domain="a", queries=30), *made_up(ScoreMixing(rerank=3), domain="b")]
    figures = compare(queries, {RETRIEVAL: Ranking.retrieval_scores, RERANKER: lambda each: each.logits})
    assert [(figure.domain, figure.order, figure.queries) for figure in figures] == [
        ("a", RETRIEVAL, 30),
        ("a", RERANKER, 30),
        ("b", RETRIEVAL, 300),
        ("b", RERANKER, 300),
    ]
    for retrieval, reranker in (figures[:2], figures[2:]):
        assert retrieval.gain == 0
        assert reranker.gain == pytest.approx(reranker.ndcg_at_10 - retrieval.ndcg_at_10)
        low, high = reranker.gain_interval
        assert high - low == pytest.approx(2 * 1.96 * reranker.gain_standard_error)
        assert low > 0, "this reranker is right"
        assert not reranker.loses
    shares = [figures[at].gain / figures[at - 1].ndcg_at_10 for at in (1, 3)]
    assert relative_gain(figures, RERANKER) == pytest.approx(sum(shares) / 2)
    assert relative_gain(figures, RETRIEVAL) == 0


def order_figures(figures: list[Figure] | tuple[Figure, ...], order: str) -> dict[str, Figure]:
    return {figure.domain: figure for figure in figures if figure.order == order}


def test_what_the_first_stage_knows_of_one_domain_and_the_reranker_of_another_is_mixed_for_both() -> None:
    queries = [
        *made_up(ScoreMixing(rerank=2.0, dense=1.0), domain="a", queries=150),
        *made_up(ScoreMixing(rerank=0.2, dense=1.0, lexical=1.0), domain="b", queries=150, seed=1),
        *made_up(ScoreMixing(rerank=0.2, dense=1.5, lexical=1.0), domain="c", queries=150, seed=2),
    ]
    learning = learn(queries, "hybrid", rank_mixing=RANKS_K10)
    assert learning.mixing
    assert [judged.family for judged in learning.families] == list(FAMILIES)
    learned = order_figures(list(learning.figures), LEARNED)
    assert set(learned) == {"a", "b", "c"}
    for domain, figure in learned.items():
        assert figure.gain_interval[0] > 0, domain
    for other in (RERANKER, RANKS):
        # Where the reranker knows least, the mixing is ahead of it.
        assert learned["c"].ndcg_at_10 > order_figures(list(learning.figures), other)["c"].ndcg_at_10 + 0.05
    assert set(order_figures(list(learning.figures), LEFT_OUT)) == {"a", "b", "c"}
    fresh = made_up(ScoreMixing(rerank=0.2, dense=1.0, lexical=1.0), domain="b", queries=150, seed=9)
    checked = order_figures(check(fresh, learning.mixing, rank_mixing=RANKS_K10), LEARNED)["b"]
    assert checked.ndcg_at_10 == pytest.approx(learned["b"].ndcg_at_10, abs=0.08)


def test_the_judged_queries_are_never_those_that_were_learned_from() -> None:
    # Judgements by chance: whoever learns them by heart gains on them, and on no others.
    draw = np.random.default_rng(3)
    queries = made_up(ScoreMixing(), queries=60)
    for each in queries:
        draw.shuffle(each.gains)
    judged = learn(queries, "hybrid", rank_mixing=RANKS_K10).chosen
    (figure,) = [figure for figure in judged.figures if figure.order == LEARNED]
    assert figure.gain_interval[0] < 0.05
    assert judged.relative_gain_left_out is None, "there is no other domain"


def test_ranks_mixed_are_left_to_be_where_nothing_is_better() -> None:
    # A reranker that is always right in its first place, with scores of which the size says nothing.
    draw = np.random.default_rng(4)
    queries = []
    for each in made_up(ScoreMixing(rerank=50), queries=80):
        logits = each.logits * 10.0 ** draw.uniform(-6, 6)
        features = each.features.copy()
        features[:, 0], features[:, 1] = logits, 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        features[:, 2:] = draw.normal(size=features[:, 2:].shape)
        queries.append(
            Ranking(domain="d", query_id=each.query_id, features=features, logits=logits, gains=each.gains, ideal=1.0)
        )
    learning = learn(queries, "hybrid", rank_mixing=Mixing(k=1, retrieval_weight=0, rerank_weight=1))
    assert learning.mixing is None


def test_domains_keep_their_order() -> None:
    queries = [*made_up(ScoreMixing(), domain="b", queries=1), *made_up(ScoreMixing(), domain="a", queries=2)]
    assert {domain: len(found) for domain, found in by_domain(queries).items()} == {"b": 1, "a": 2}
