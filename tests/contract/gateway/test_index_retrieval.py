"""What all that claims to be an index retrieves: by vectors, by BM25, and by both."""

from dataclasses import replace

import pytest

from tests.contract.gateway.indexed import DOCUMENTS, SPEC, fill, point, retrieve
from tests.fakes.backends import embed_words
from winnow_gateway.collections import (
    LexicalConfig,
)
from winnow_gateway.documents import Document
from winnow_gateway.filters import Filter, Match
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, StagePlace
from winnow_gateway.ports import Index, Point
from winnow_rpc.faults import FailedPrecondition


async def test_the_nearest_come_first_with_their_cosines(index: Index) -> None:
    await fill(index)
    query = embed_words("cat mat")
    found = await retrieve(index, query, None, limit=3, ef=64, exact=True)
    expected = sorted(DOCUMENTS, key=lambda each: (-float(embed_words(each.passage) @ query), each.id))[:3]
    assert [each.document for each in found] == expected
    for each in found:
        assert each.score == pytest.approx(float(embed_words(each.document.passage) @ query), abs=1e-5)


async def test_candidates_of_equal_score_are_in_the_order_of_their_ids(index: Index) -> None:
    await index.create_collection(SPEC)
    same = [Document(id_, text="the same text") for id_ in ("c", "a", "b")]
    await index.upsert("docs", [Point(each, each.content_hash, embed_words(each.passage)) for each in same])
    found = await retrieve(index, embed_words("same"), None)
    assert [each.document.id for each in found] == ["a", "b", "c"]
    found = await retrieve(index, None, "same")
    assert [each.document.id for each in found] == ["a", "b", "c"]


async def test_a_least_score_leaves_out_the_rest(index: Index) -> None:
    await fill(index)
    query = embed_words("quick brown fox")
    found = await retrieve(index, query, None, min_score=0.5)
    assert [each.document.id for each in found] == ["fox"]


async def test_by_bm25_a_rare_word_finds_more_than_a_common_one_and_others_are_not_found(index: Index) -> None:
    await fill(index)
    found = await retrieve(index, None, "the brown cat")
    assert {each.document.id for each in found} == {"cat", "dog", "fox"}
    assert await retrieve(index, None, "nothing of it") == []
    (rare,) = await retrieve(index, None, "chased")
    common = {each.document.id: each.score for each in await retrieve(index, None, "cat")}
    assert rare.document == DOCUMENTS[1]
    assert set(common) == {"cat", "dog"}
    assert rare.score > common["dog"] > 0


async def test_bm25_reads_the_title_and_a_long_text_to_its_end(index: Index) -> None:
    long = Document("long", "Heading", "word " * 10_000 + "needle")
    await fill(index, [long, *DOCUMENTS])
    for query in ("heading", "needle"):
        (found,) = await retrieve(index, None, query)
        assert (found.document.id, found.head_only) == ("long", True)


async def test_a_least_score_of_vectors_means_nothing_to_bm25(index: Index) -> None:
    await fill(index)
    assert await retrieve(index, None, "fox", min_score=1000.0) == await retrieve(index, None, "fox")
    both = await retrieve(index, embed_words("cat"), "fox", min_score=1000.0)
    assert [each.document.id for each in both] == ["fox"]


@pytest.mark.parametrize("fusion", [DEFAULT_FUSION, Fusion(1, 0.5, 2.0), Fusion(60, 1.0, 1.0)], ids=str)
async def test_both_orders_are_fused_by_weighted_reciprocal_ranks(index: Index, fusion: Fusion) -> None:
    await fill(index)
    vector, text = embed_words("quick cat dog"), "brown fox cat"
    expected: dict[str, float] = {}
    for weight, order in (
        (fusion.dense_weight, await retrieve(index, vector, None)),
        (fusion.lexical_weight, await retrieve(index, None, text)),
    ):
        for rank, each in enumerate(order, start=1):
            expected[each.document.id] = expected.get(each.document.id, 0.0) + 1 / (rank / weight + fusion.k - 1)
    found = await retrieve(index, vector, text, fusion=fusion)
    assert {each.document.id: each.score for each in found} == pytest.approx(expected, rel=1e-5)
    assert found == sorted(found, key=lambda each: (-each.score, each.document.id))
    assert await retrieve(index, vector, text, fusion=fusion, limit=2) == found[:2]


async def test_a_fused_candidate_says_its_place_in_both_orders(index: Index) -> None:
    await fill(index)
    vector, text = embed_words("quick cat dog"), "brown fox cat"
    by_vectors = await retrieve(index, vector, None, min_score=0.3)
    by_words = await retrieve(index, None, text)
    assert 0 < len(by_vectors) < len(DOCUMENTS), "some are not found by vectors"
    assert 0 < len(by_words) < len(DOCUMENTS), "some are not found by BM25"
    for limit in (1, 2, 10):
        found = await retrieve(index, vector, text, limit=limit, min_score=0.3)
        assert len(found) == min(limit, len({each.document.id for each in by_vectors + by_words}))
        for each in found:
            for place, order in ((each.dense, by_vectors), (each.lexical, by_words)):
                ranks = {other.document.id: rank for rank, other in enumerate(order, start=1)}
                scores = {other.document.id: other.score for other in order}
                assert (place.rank if place else None) == ranks.get(each.document.id)
                if place:
                    assert place.score == pytest.approx(scores[each.document.id], rel=1e-5)


async def test_a_candidate_of_one_order_says_its_place_in_that(index: Index) -> None:
    await fill(index)
    for rank, each in enumerate(await retrieve(index, embed_words("cat"), None), start=1):
        assert (each.dense, each.lexical) == (StagePlace(each.score, rank), None)
    for rank, each in enumerate(await retrieve(index, None, "cat"), start=1):
        assert (each.dense, each.lexical) == (None, StagePlace(each.score, rank))


async def test_where_fused_scores_are_equal_the_cut_is_the_same_every_time(index: Index) -> None:
    near = [Document(f"n{rank}", text="near " + "other " * rank) for rank in range(8)]
    worded = [Document(f"w{rank}", text="word " + "filler " * rank) for rank in range(8)]
    await fill(index, [*near, *worded])
    expected = [each.id for pair in zip(near, worded, strict=True) for each in pair]
    even = Fusion(2, 1.0, 1.0)
    for limit in range(1, 10):
        found = await retrieve(index, embed_words("near"), "word", fusion=even, limit=limit, min_score=0.1)
        assert [each.document.id for each in found] == expected[:limit]


async def test_a_filter_holds_in_every_kind_of_retrieval(index: Index) -> None:
    # More that do not fit than either order is read down for fusion, all of them nearer than the one that does.
    crowd = [Document(f"d{n:03}", text="cat mat", metadata={"year": 1}) for n in range(150)]
    await fill(index, [*crowd, DOCUMENTS[0]])
    wanted = Filter(must=[Match("year", [1999])])
    vector, text = embed_words("cat mat"), "cat mat"
    for given in ((vector, None), (None, text), (vector, text)):
        assert [each.document.id for each in await retrieve(index, *given, filter_=wanted)] == ["cat"]
        assert len(await retrieve(index, *given, limit=151)) == 151


async def test_a_collection_of_vectors_alone_is_searched_by_vectors_alone(index: Index) -> None:
    await index.create_collection(replace(SPEC, lexical=None))
    assert (await index.collection("docs")).spec.lexical is None
    await index.upsert("docs", [Point(each, each.content_hash, embed_words(each.passage)) for each in DOCUMENTS])
    assert len(await retrieve(index, embed_words("cat"), None)) == len(DOCUMENTS)
    for vector in (None, embed_words("cat")):
        with pytest.raises(FailedPrecondition) as caught:
            await retrieve(index, vector, "cat")
        assert caught.value.reason == "NO_LEXICAL_INDEX"


async def test_a_collection_made_anew_in_another_language_is_written_and_read_in_it(index: Index) -> None:
    await fill(index)
    await index.delete_collection("docs")
    await index.create_collection(replace(SPEC, lexical=LexicalConfig("english")))
    await index.upsert("docs", [Point(each, each.content_hash, embed_words(each.passage)) for each in DOCUMENTS])
    (found,) = await retrieve(index, None, "fox")
    assert found.document.id == "fox"
    assert (await index.collection("docs")).spec.lexical == LexicalConfig("english")


async def test_candidates_too_large_for_one_message_come_whole(index: Index) -> None:
    large = [Document(f"d{i:02}", text="x " * n, metadata={"blob": "y" * 60_000}) for i, n in enumerate(range(1, 65))]
    await index.create_collection(SPEC)
    for start in range(0, len(large), 16):
        await index.upsert("docs", [point(each) for each in large[start : start + 16]])
    by_id = {each.id: each for each in large}
    for vector, text in ((embed_words("x"), None), (None, "x"), (embed_words("x"), "x")):
        found = await retrieve(index, vector, text, limit=60)
        assert len(found) == 60
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        for each in found:
            assert each.document == by_id[each.document.id]
            assert (each.dense is not None, each.lexical is not None) == (vector is not None, text is not None)
