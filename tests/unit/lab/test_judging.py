"""Orders side by side, against judgements."""

import pytest

from winnow_client import Document, Hit, StageResult
from winnow_gateway.ordering import Fusion, Mixing
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.judging import BM25, DENSE, HYBRID, MIXINGS, Answer, fuse, judge, order_by


def hit(id_: str, *, retrieved: int, score: float) -> Hit:
    return Hit(
        document=Document(id=id_),
        rank=1,
        score=score,
        retrieval=StageResult(score=1 / retrieved, rank=retrieved),
        rerank=StageResult(score=score, rank=1),
    )


def answer(relevant: str, *, reranked: bool = True) -> Answer:
    stages = {DENSE: ["a", "b"], BM25: ["c", "a"], HYBRID: ["a", "c"]}
    hits = [hit("c", retrieved=2, score=0.9), hit("a", retrieved=1, score=0.1)] if reranked else []
    return Answer(JudgedQuery("q", "?", {relevant: 1.0}), stages, hits)


def test_first_stages_are_compared_with_vectors_and_reranked_orders_with_hybrid() -> None:
    report = judge([answer("c"), answer("c")], name="set", split="test", documents=9, first_depth=2)
    rows = {row.order: row for row in report.rows}
    assert (rows[DENSE].ndcg_at_10, rows[BM25].ndcg_at_10) == (0.0, 1.0)
    assert (rows[DENSE].against, rows[BM25].against, rows[HYBRID].against) == ("", DENSE, DENSE)
    assert rows[HYBRID].gain == pytest.approx(0.6309, abs=1e-4)
    assert [rows[stage].recall for stage in (DENSE, BM25, HYBRID)] == [0.0, 1.0, 1.0]
    alone = rows[f"{HYBRID}, reranked alone"]
    assert (alone.ndcg_at_10, alone.against, alone.recall) == (1.0, HYBRID, None)
    assert len(report.rows) == 3 + len(MIXINGS)
    assert (report.query_count, report.rerank_depth, report.ceiling) == (2, 2, 1.0)


def test_without_reranking_there_are_first_stages_alone() -> None:
    report = judge([answer("a", reranked=False)], name="set", split="dev", documents=9, first_depth=2)
    assert [row.order for row in report.rows] == [DENSE, BM25, HYBRID]
    assert (report.rerank_depth, report.ceiling) == (0, 0.0)


def test_a_fusion_that_is_given_has_a_row_of_its_own() -> None:
    fusions = [Fusion(2, 1, 8), Fusion(2, 8, 1)]
    report = judge([answer("c")], name="set", split="dev", documents=9, first_depth=2, fusions=fusions)
    rows = {row.order: row for row in report.rows}
    assert rows["fused, k = 2, weights 1 : 8"].ndcg_at_10 > rows["fused, k = 2, weights 8 : 1"].ndcg_at_10


def test_fusion_adds_what_each_order_gives() -> None:
    # a: 1/(1+1) + 1/(2/2+1); b: 1/(2+1); c: 1/(1/2+1).
    assert fuse(Fusion(2, 1.0, 2.0), ["a", "b"], ["c", "a"]) == ["a", "c", "b"]
    assert fuse(Fusion(2, 1.0, 1.0), ["b"], ["a"]) == ["a", "b"]


def test_hits_are_ordered_anew_by_what_a_mixing_says() -> None:
    hits = [hit("c", retrieved=2, score=0.9), hit("a", retrieved=1, score=0.1)]
    assert order_by(hits, None) == ["c", "a"]
    assert order_by(hits, Mixing(k=10, retrieval_weight=5)) == ["a", "c"]
