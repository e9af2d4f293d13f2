"""The order that each system would give for an answer."""

from __future__ import annotations

import random

import pytest

from tests.unit.lab.evaluating.made_up import an_answer, an_order
from winnow_gateway.candidate_order import CandidateOrder
from winnow_gateway.documents import Document
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Fusion, Mixing, StagePlace
from winnow_gateway.ports import Candidate, RerankerModel
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, Asking, Order, Recommended, fuse
from winnow_lab.evaluating.systems import EXHAUSTIVE, System, systems

STAGES = (DENSE, BM25, HYBRID)


def test_each_depth_is_made_of_the_same_scores() -> None:
    answer = an_answer({}, dense=["a", "b", "c", "d"], scores={"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4})
    orders = {depth: System(name="", stage=DENSE, depth=depth).order(answer).ids for depth in (1, 2, 3, 4, 9)}
    assert orders == {
        1: ["a", "b", "c", "d"],
        2: ["b", "a", "c", "d"],
        3: ["c", "b", "a", "d"],
        4: ["d", "c", "b", "a"],
        9: ["d", "c", "b", "a"],
    }


def test_the_scores_of_an_order_never_rise() -> None:
    answer = an_answer({}, dense=["a", "b", "c", "d"], scores={"a": -3.0, "b": 5.0})
    for mixing in (None, Mixing(k=10)):
        scores = System(name="", stage=DENSE, depth=2, mixing=mixing).order(answer).scores
        assert list(scores) == sorted(scores, reverse=True)


def test_a_mixing_weighs_both_stages_as_the_gateway_does() -> None:
    answer = an_answer({}, hybrid=["a", "c"], scores={"a": 0.1, "c": 0.9})
    alone = System(name="", stage=HYBRID, depth=2)
    mixed = System(name="", stage=HYBRID, depth=2, mixing=Mixing(k=10, retrieval_weight=5))
    assert (alone.order(answer).ids, mixed.order(answer).ids) == (["c", "a"], ["a", "c"])


@pytest.mark.parametrize("stage", [DENSE, HYBRID])
@pytest.mark.parametrize("depth", [3, 12])
def test_scores_are_mixed_as_the_gateway_mixes_the_candidates_of_a_search_so_deep(stage: str, depth: int) -> None:
    chance = random.Random(depth)
    ids = [f"d{at}" for at in range(20)]
    scored = {
        name: Order(chance.sample(ids, 20), sorted((chance.random() for _ in ids), reverse=True)) for name in STAGES
    }
    scored[BM25] = scored[BM25].first(9)
    answer = Answer(
        query=JudgedQuery("q", "?", {}), first_stages=scored, rerank_scores={id_: chance.random() for id_ in ids}
    )
    mixing = ScoreMixing(rerank=0.3, rerank_sigmoid=1, dense=0.5, lexical=0.2, retrieval_rank=1, lexical_absent=-0.4)
    ours = System(name="", stage=stage, depth=depth, mixing=mixing, activation="sigmoid").order(answer)

    def place(name: str, id_: str) -> StagePlace | None:
        if stage not in (name, HYBRID) or id_ not in scored[name].ids:
            return None
        at = scored[name].ids.index(id_)
        return StagePlace(scored[name].scores[at], at + 1)

    # A search for ten hits fetches ten candidates at least.
    fetched = scored[stage].first(max(10, depth))
    order = CandidateOrder(
        [
            Candidate(Document(id_), score, dense=place(DENSE, id_), lexical=place(BM25, id_))
            for id_, score in zip(fetched.ids, fetched.scores, strict=True)
        ]
    )
    order.mix(mixing, RerankerModel("model", "fingerprint", None, activation="sigmoid"))
    theirs = order.place({at: answer.rerank_scores[id_] for at, id_ in enumerate(fetched.ids[:depth])})
    assert ours.ids[: len(theirs)] == [fetched.ids[each.position] for each in theirs]
    assert ours.scores[:depth] == pytest.approx([each.score for each in theirs[:depth]])
    assert list(ours.scores) == sorted(ours.scores, reverse=True)


def test_fusion_adds_what_each_order_gives() -> None:
    # a: 1/(1+1) + 1/(2/2+1); b: 1/(2+1); c: 1/(1/2+1).
    fused = fuse(Fusion(2, 1.0, 2.0), an_order("a", "b"), an_order("c", "a"))
    assert fused.ids == ["a", "c", "b"]
    assert fused.scores == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert fuse(Fusion(2, 1.0, 1.0), an_order("b"), an_order("a")).ids == ["a", "b"], "ties by id"


def test_another_fusion_is_a_first_stage_as_deep_as_the_others() -> None:
    answer = an_answer({}, dense=["a", "b"], lexical=["c", "d"])
    assert System(name="", fusion=Fusion(2, 1, 8)).order(answer).ids == ["c", "d"]


def test_candidates_of_both_stages_are_scored_once() -> None:
    stages = an_answer({}, dense=["a", "b", "x"], hybrid=["b", "c", "y"]).first_stages
    assert Asking(rerank_depth=2).candidates(stages) == ["a", "b", "c"]
    assert Asking(rerank_depth=2, rerank_over=[HYBRID]).candidates(stages) == ["b", "c"]
    assert Asking().candidates(stages) == []


def test_the_systems_have_names_to_be_told_apart_by() -> None:
    made = systems(
        depths=[20],
        recommended=Recommended({HYBRID: Mixing(k=10)}),
        mixings=[Mixing(k=2)],
        fusions=[Fusion(2, 1, 1)],
        exhaustive=True,
    )
    assert [system.name for system in made] == [
        DENSE,
        BM25,
        HYBRID,
        "fused k=2 1:1",
        "dense, rerank 20",
        "dense, rerank 20, k=2 1:1",
        "hybrid, rerank 20",
        "hybrid, rerank 20, mixed",
        "hybrid, rerank 20, k=2 1:1",
        EXHAUSTIVE,
    ]
    assert made[-1].order(an_answer({}, exhaustive=["z", "a"])).ids == ("z", "a")
    assert len({system.name for system in made}) == len(made)
