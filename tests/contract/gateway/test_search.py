"""Searches over a real connection: what they answer, and how they refuse what is wrong."""

import itertools
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.gateway.calls import TEXTS, fault, fill, ingest, search, violated
from tests.contract.gateway.conftest import Gateway
from tests.fakes.backends import FakeEmbedder, embed_words
from winnow.search.v1 import collections_pb2 as c
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.documents import Document
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import DEFAULT_FUSION, Mixing
from winnow_gateway.ports import Point
from winnow_rpc import faults


async def test_retrieval_alone_shows_its_scores_and_ranks(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_RETRIEVE, limit=3))
    assert response.mode == s.SEARCH_MODE_RETRIEVE
    assert [hit.rank for hit in response.hits] == [1, 2, 3]
    assert [hit.retrieval.rank for hit in response.hits] == [1, 2, 3]
    assert not any(hit.HasField("rerank") for hit in response.hits)
    assert all(hit.score == hit.retrieval.score for hit in response.hits)
    assert (response.candidate_count, response.reranked_count) == (3, 0)
    assert not response.reranker_fingerprint
    assert gateway.reranker.passages == []


async def test_two_stages_order_by_the_reranker_and_show_both(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(limit=2, mode=s.SEARCH_MODE_TWO_STAGE))
    assert response.mode == s.SEARCH_MODE_TWO_STAGE
    # "dogs" alone holds both words of the query.
    assert response.hits[0].document.id == "dogs"
    assert response.hits[0].rerank == s.StageResult(score=2.0, rank=1)
    assert response.hits[0].score == 2.0
    assert (response.candidate_count, response.reranked_count, len(response.hits)) == (4, 4, 2)
    assert response.reranker_fingerprint == gateway.reranker.served.fingerprint
    assert not response.degradations
    assert not response.HasField("mixing")


async def test_only_the_best_candidates_to_the_depth_are_reranked_the_others_follow(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(limit=4, depth=2))
    assert (response.candidate_count, response.reranked_count) == (4, 2)
    assert [hit.HasField("rerank") for hit in response.hits] == [True, True, False, False]
    assert {hit.retrieval.rank for hit in response.hits[:2]} == {1, 2}


async def test_the_timing_adds_up(gateway: Gateway) -> None:
    await fill(gateway)
    timing = (await gateway.stub.Search(search())).timing
    stages = timing.embed_micros + timing.retrieve_micros + timing.rerank_micros
    assert timing.total_micros == stages + timing.gateway_micros
    assert min(timing.embed_micros, timing.retrieve_micros, timing.rerank_micros, timing.gateway_micros) > 0
    assert timing.embed_token_count == 2
    assert timing.rerank_token_count == 14


async def test_the_models_mixing_is_the_default_and_the_request_may_say_otherwise(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.served = type(gateway.reranker.served)("m", "c" * 64, Mixing(10, 1, 2))
    default = await gateway.stub.Search(search())
    assert default.mixing == s.RankMixing(k=10, retrieval_weight=1, rerank_weight=2)
    best = default.hits[0]
    assert best.score == pytest.approx(1 / (10 + best.retrieval.rank) + 2 / (10 + best.rerank.rank), rel=1e-6)
    alone = await gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_RERANKER))
    assert not alone.HasField("mixing")
    mixing = s.RankMixing(k=1, retrieval_weight=5, rerank_weight=1)
    own = await gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_MIXED, mixing=mixing))
    assert own.mixing == mixing


async def test_scores_are_mixed_as_the_model_recommends_for_what_was_retrieved(gateway: Gateway) -> None:
    await fill(gateway)
    hybrid, dense = ScoreMixing(rerank=0.5, lexical=1, dense_absent=-2), ScoreMixing(rerank_sigmoid=3, dense=1)
    gateway.reranker.served = type(gateway.reranker.served)(
        "m", "c" * 64, Mixing(10, 1, 2), score_mixings={"hybrid": hybrid, "dense": dense}
    )
    response = await gateway.stub.Search(search())
    assert not response.HasField("mixing")
    assert response.score_mixing == s.ScoreMixing(rerank=0.5, lexical=1, dense_absent=-2)
    hits = sorted(response.hits, key=lambda hit: hit.retrieval.rank)
    found = [hit.lexical.score for hit in hits if hit.HasField("lexical")]
    assert 0 < len(found) < len(hits), "some are not found by BM25"
    words = [hit.lexical.score if hit.HasField("lexical") else min(found) for hit in hits]
    mean, deviation = statistics.fmean(words), statistics.pstdev(words)
    for hit, score in zip(hits, words, strict=True):
        assert hit.score == pytest.approx(0.5 * hit.rerank.score + (score - mean) / deviation, abs=1e-5)
    assert [hit.score for hit in response.hits] == sorted((hit.score for hit in hits), reverse=True)

    kind = s.RetrievalOptions(kind=s.RETRIEVAL_KIND_DENSE)
    by_vectors = await gateway.stub.Search(search(retrieval=kind))
    assert by_vectors.score_mixing == s.ScoreMixing(rerank_sigmoid=3, dense=1)
    ranks = s.RankMixing(k=1, retrieval_weight=5, rerank_weight=1)
    own = await gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_MIXED, mixing=ranks))
    assert (own.mixing, own.HasField("score_mixing")) == (ranks, False)


async def test_a_hit_says_what_each_order_thought_of_it(gateway: Gateway) -> None:
    await fill(gateway)
    for mode in (s.SEARCH_MODE_RETRIEVE, s.SEARCH_MODE_TWO_STAGE, s.SEARCH_MODE_EXHAUSTIVE):
        hits = (await gateway.stub.Search(search(mode=mode))).hits
        assert sorted(hit.dense.rank for hit in hits) == list(range(1, len(hits) + 1))
        found = [hit for hit in hits if hit.HasField("lexical")]
        assert {hit.document.id for hit in found} == {"dogs", "birds", "cats"}
        for place in ("dense", "lexical"):
            ordered = sorted((getattr(hit, place) for hit in hits if hit.HasField(place)), key=lambda stage: stage.rank)
            assert all(left.score >= right.score for left, right in itertools.pairwise(ordered))
        fusion = DEFAULT_FUSION
        for hit in hits:
            share = fusion.share(hit.dense.rank, fusion.dense_weight)
            if hit.HasField("lexical"):
                share += fusion.share(hit.lexical.rank, fusion.lexical_weight)
            assert hit.retrieval.score == pytest.approx(share)


async def test_a_hit_has_a_probability_where_the_model_is_calibrated(gateway: Gateway) -> None:
    await fill(gateway)
    assert not any(hit.HasField("probability") for hit in (await gateway.stub.Search(search())).hits)
    gateway.reranker.served = replace(gateway.reranker.served, calibrated=True)
    hits = (await gateway.stub.Search(search(depth=2))).hits
    assert [hit.HasField("probability") for hit in hits] == [True, True, False, False]
    for hit in hits[:2]:
        assert hit.probability == pytest.approx(1 - 1 / (1 + hit.rerank.score))


async def test_a_mixing_that_nobody_gives_is_a_failed_precondition(gateway: Gateway) -> None:
    await fill(gateway)
    came = await fault(gateway.stub.Search(search(ranking_policy=s.RANKING_POLICY_MIXED)))
    assert isinstance(came, faults.FailedPrecondition)
    assert came.reason == "NO_MIXING"


async def test_a_filter_and_a_view_hold_for_searches(gateway: Gateway) -> None:
    await fill(gateway)
    small = d.Condition(range=d.RangeCondition(key="number", less_than=2))
    response = await gateway.stub.Search(
        search(filter=d.Filter(must=[small]), view=d.DocumentView(omit_text=True, omit_metadata=True))
    )
    assert sorted(hit.document.id for hit in response.hits) == ["cats", "dogs"]
    assert all(not hit.document.text and not hit.document.metadata for hit in response.hits)
    assert all(gateway.reranker.passages), "the reranker needs the texts even when the caller does not"


async def test_a_filter_on_a_field_that_is_not_indexed_is_answered_by_scanning(gateway: Gateway) -> None:
    fields = [c.MetadataField(key="year", type=c.METADATA_TYPE_INTEGER)]
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs", metadata_fields=fields))
    for key, exact in (("year", False), ("month", True)):
        inner = d.Filter(must=[d.Condition(range=d.RangeCondition(key=key, at_least=1))])
        await gateway.stub.Search(search(filter=d.Filter(should=[d.Condition(filter=inner)])))
        assert gateway.index.exact_searches.pop() is exact
    await gateway.stub.Search(search(filter=d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=["a"]))])))
    assert gateway.index.exact_searches.pop() is False


async def test_a_hit_has_its_whole_text_however_long(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    await ingest(gateway, [d.Document(id="long", text="cat " * 10_000)])
    response = await gateway.stub.Search(search())
    assert response.hits[0].document.text == "cat " * 10_000
    assert len(gateway.reranker.passages[0].encode()) == 16 * 1024
    response = await gateway.stub.Search(search(view=d.DocumentView(omit_text=True)))
    assert response.hits[0].document.text == ""


async def test_least_scores_are_kept_per_stage(gateway: Gateway) -> None:
    await fill(gateway)
    by_vectors = s.RetrievalOptions(kind=s.RETRIEVAL_KIND_DENSE)
    assert (await gateway.stub.Search(search(retrieval=by_vectors, min_retrieval_score=2.0))).candidate_count == 0
    response = await gateway.stub.Search(search(min_rerank_score=2.0))
    assert [hit.document.id for hit in response.hits] == ["dogs"]
    response = await gateway.stub.Search(search(min_rerank_score=2.0, mode=s.SEARCH_MODE_RETRIEVE))
    assert len(response.hits) == 4


async def test_a_least_probability_judges_what_was_reranked(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.served = replace(gateway.reranker.served, calibrated=True)
    for policy in (s.RANKING_POLICY_UNSPECIFIED, s.RANKING_POLICY_RERANKER):
        # Two words of the query are in "dogs", one in "cats" and in "birds".
        for least, expected in ((0.6, {"dogs"}), (0.5, {"dogs", "cats", "birds"}), (0.0, set(TEXTS))):
            response = await gateway.stub.Search(search(min_probability=least, ranking_policy=policy))
            assert {hit.document.id for hit in response.hits} == expected
    response = await gateway.stub.Search(search(min_probability=0.6, depth=1))
    assert [hit.HasField("rerank") for hit in response.hits] == [True, False, False, False]
    retrieved = await gateway.stub.Search(search(min_probability=1.0, mode=s.SEARCH_MODE_RETRIEVE))
    assert len(retrieved.hits) == 4


async def test_a_least_probability_of_a_model_that_gives_none_is_a_failed_precondition(gateway: Gateway) -> None:
    await fill(gateway)
    came = await fault(gateway.stub.Search(search(min_probability=0.5)))
    assert isinstance(came, faults.FailedPrecondition)
    assert came.reason == "NOT_CALIBRATED"


async def test_an_empty_collection_gives_no_hits(gateway: Gateway) -> None:
    await gateway.stub.CreateCollection(c.CreateCollectionRequest(name="docs"))
    response = await gateway.stub.Search(search())
    assert (len(response.hits), response.candidate_count) == (0, 0)


async def test_a_query_that_was_cut_is_reported(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.max_words = 3
    response = await gateway.stub.Search(search(query="the cat sat on the mat"))
    (degradation,) = response.degradations
    assert degradation.affected_count == 3
    assert degradation.kind == s.DEGRADATION_KIND_QUERY_TRUNCATED
    assert degradation.reason == "TOO_LONG"
    assert "3 tokens" in degradation.message


async def test_another_model_than_the_collections_is_refused_with_both_named(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.embedder.served = FakeEmbedder("0" * 64).served
    for call in (gateway.stub.Search(search()), ingest(gateway, [d.Document(id="a", text="x")])):
        came = await fault(call)
        assert isinstance(came, faults.FailedPrecondition)
        assert came.reason == "EMBEDDER_MISMATCH"
        assert came.metadata["collection_fingerprint"] == "f" * 64
        assert came.metadata["served_fingerprint"] == "0" * 64


def nested(depth: int) -> d.Filter:
    inner = d.Filter(must=[d.Condition(exists=d.ExistsCondition(key="k"))])
    for _ in range(depth):
        inner = d.Filter(must=[d.Condition(filter=inner)])
    return inner


def must(**condition: Any) -> d.Filter:
    return d.Filter(must=[d.Condition(**condition)])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"collection": ""}, "collection"),
        ({"query": ""}, "query"),
        ({"query": " \t\n"}, "query"),
        ({"query": "x" * 32_769}, "query"),
        ({"limit": -1}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"depth": -1}, "depth"),
        ({"depth": 1_000_000}, "depth"),
        ({"mode": 99}, "mode"),
        ({"depth_policy": 9}, "depth_policy"),
        ({"effort": 9}, "effort"),
        ({"budget_micros": 0}, "budget_micros"),
        ({"budget_micros": -1}, "budget_micros"),
        ({"budget_micros": 999}, "budget_micros"),
        ({"budget_micros": 3_600_000_001}, "budget_micros"),
        ({"budget_micros": 2**63 - 1}, "budget_micros"),
        ({"require_rerank": True, "mode": s.SEARCH_MODE_RETRIEVE}, "require_rerank"),
        ({"depth_policy": s.DEPTH_POLICY_FLOOR, "mode": s.SEARCH_MODE_RETRIEVE}, "depth_policy"),
        ({"depth_policy": s.DEPTH_POLICY_FLOOR, "mode": s.SEARCH_MODE_LEXICAL}, "depth_policy"),
        ({"retrieval": s.RetrievalOptions(kind=9)}, "retrieval.kind"),
        ({"retrieval": s.RetrievalOptions(kind=s.RETRIEVAL_KIND_LEXICAL)}, "retrieval.kind"),
        ({"retrieval": s.RetrievalOptions(fusion=s.RankFusion(k=0, dense_weight=1, lexical_weight=1))},
         "retrieval.fusion.k"),
        ({"retrieval": s.RetrievalOptions(fusion=s.RankFusion(k=1, dense_weight=0, lexical_weight=1))},
         "retrieval.fusion.dense_weight"),
        ({"ranking_policy": 99}, "ranking_policy"),
        ({"min_retrieval_score": math.nan}, "min_retrieval_score"),
        ({"min_rerank_score": math.inf}, "min_rerank_score"),
        ({"min_probability": 1.5}, "min_probability"),
        ({"min_probability": math.nan}, "min_probability"),
        ({"retrieval": s.RetrievalOptions(ef=5000)}, "retrieval.ef"),
        ({"retrieval": s.RetrievalOptions(ef=-5)}, "retrieval.ef"),
        ({"retrieval": s.RetrievalOptions(kind=99)}, "retrieval.kind"),
        ({"retrieval": s.RetrievalOptions(fusion=s.RankFusion())}, "retrieval.fusion.k"),
        (
            {"retrieval": s.RetrievalOptions(fusion=s.RankFusion(k=2, dense_weight=0, lexical_weight=1))},
            "retrieval.fusion.dense_weight",
        ),
        (
            {"retrieval": s.RetrievalOptions(fusion=s.RankFusion(k=2, dense_weight=1, lexical_weight=math.nan))},
            "retrieval.fusion.lexical_weight",
        ),
        (
            {"retrieval": s.RetrievalOptions(fusion=s.RankFusion(k=1, dense_weight=3e38, lexical_weight=1))},
            "retrieval.fusion.dense_weight",
        ),
        ({"mixing": s.RankMixing(k=0, rerank_weight=1)}, "mixing.k"),
        ({"mixing": s.RankMixing(k=math.nan, rerank_weight=1)}, "mixing.k"),
        ({"mixing": s.RankMixing(k=1, rerank_weight=0)}, "mixing.rerank_weight"),
        ({"mixing": s.RankMixing(k=1, rerank_weight=1, retrieval_weight=-1)}, "mixing.retrieval_weight"),
        ({"filter": d.Filter(must=[d.Condition()])}, "filter.must[0]"),
        ({"filter": must(match=d.MatchCondition(key="k"))}, "filter.must[0].match.any_of"),
        ({"filter": must(match=d.MatchCondition(key="k", any_of=[d.MatchValue()]))}, "filter.must[0]"),
        (
            {"filter": must(match=d.MatchCondition(
                key="k", any_of=[d.MatchValue(bool_value=True), d.MatchValue(integer_value=1)]))},
            "filter.must[0].match.any_of",
        ),
        ({"filter": must(range=d.RangeCondition(key="k"))}, "filter.must[0].range"),
        ({"filter": must(range=d.RangeCondition(key="k", at_least=math.nan))}, "filter.must[0].range"),
        ({"filter": must(range=d.RangeCondition(key="", at_least=1))}, "filter.must[0].range.key"),
        ({"filter": must(time_range=d.TimeRangeCondition(key="k"))}, "filter.must[0].time_range"),
        ({"filter": must(exists=d.ExistsCondition(key="a[]"))}, "filter.must[0].exists.key"),
        ({"filter": must(ids=d.IdsCondition())}, "filter.must[0].ids.ids"),
        ({"filter": must(filter=d.Filter())}, "filter.must[0]"),
        ({"filter": nested(8)}, "filter" + ".must[0].filter" * 8),
        ({"filter": d.Filter(should=nested(0).must[:1] * 257)}, "filter"),
    ],
)  # fmt: skip
async def test_a_bad_search_is_refused_by_field(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    await fill(gateway)
    assert violated(await fault(gateway.stub.Search(search(**fields)))) == field


async def test_a_search_of_an_unknown_collection_is_not_found(gateway: Gateway) -> None:
    came = await fault(gateway.stub.Search(search(collection="nope")))
    assert isinstance(came, faults.NotFound)
    assert came.reason == "NO_COLLECTION"


async def test_a_collection_made_anew_for_another_model_is_seen_when_memory_fades(gateway: Gateway) -> None:
    await fill(gateway)
    await gateway.stub.Search(search())
    gateway.embedder.served = FakeEmbedder("0" * 64).served
    # As another gateway would do it, behind this one's back.
    spec = gateway.index.held["docs"].spec
    await gateway.index.delete_collection("docs")
    await gateway.index.create_collection(type(spec)(name="docs", embedder=gateway.embedder.served))
    assert isinstance(await fault(gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE))), faults.FailedPrecondition)
    gateway.now += 6
    assert (await gateway.stub.Search(search())).candidate_count == 0


async def grow_unnoticed(gateway: Gateway, count: int) -> None:
    """Another gateway writes documents; this one remembers how many there were."""
    spec = gateway.index.held["docs"].spec
    documents = [Document(f"new{at:04}", text=f"cat number {at}") for at in range(count)]
    points = [Point(each, each.content_hash, embed_words(each.passage)) for each in documents]
    await gateway.index.upsert(spec.stored_as, points)


async def test_a_depth_does_not_fall_short_of_documents_that_came_since_they_were_counted(gateway: Gateway) -> None:
    await fill(gateway)
    two_stage = search(mode=s.SEARCH_MODE_TWO_STAGE, query="cat")
    assert (await gateway.stub.Search(two_stage)).planned_depth == 4
    await grow_unnoticed(gateway, 46)
    response = await gateway.stub.Search(two_stage)
    assert (response.planned_depth, response.reranked_count) == (50, 50)


async def test_auto_does_not_rerank_all_of_a_collection_that_was_small_when_it_was_counted(gateway: Gateway) -> None:
    await fill(gateway)
    assert (await gateway.stub.Search(search(query="cat"))).mode == s.SEARCH_MODE_EXHAUSTIVE
    await grow_unnoticed(gateway, 596)
    response = await gateway.stub.Search(search(query="cat"))
    assert (response.mode, response.reranked_count) == (s.SEARCH_MODE_TWO_STAGE, 100)
