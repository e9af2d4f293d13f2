"""One suite for all that claims to be an index: the fake of the tests, and the Qdrant client over a real server."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes.backends import DIMENSION, embed_words
from winnow_gateway.collections import (
    CollectionSpec,
    EmbedderModel,
    HnswConfig,
    IndexState,
    LexicalConfig,
    MetadataField,
    MetadataType,
    Similarity,
)
from winnow_gateway.documents import WHOLE_DOCUMENT, Document, DocumentView
from winnow_gateway.filters import NO_FILTER, Condition, Exists, Filter, HasId, Match, Range, TimeRange
from winnow_gateway.ordering import DEFAULT_FUSION, Fusion, StagePlace
from winnow_gateway.ports import Candidate, Index, Point, WholeTexts
from winnow_gateway.qdrant_index import QdrantIndex
from winnow_rpc.faults import AlreadyExists, FailedPrecondition, NotFound, Unavailable

SPEC = CollectionSpec(
    name="docs",
    embedder=EmbedderModel("some-model", "a" * 64, DIMENSION, Similarity.COSINE),
    description="Führer durch die Dinge",
    metadata_fields=(MetadataField("year", MetadataType.INTEGER), MetadataField("author.name", MetadataType.KEYWORD)),
    hnsw=HnswConfig(m=8, ef_construct=64),
    # Words as they are written: the fake takes nothing off them.
    lexical=LexicalConfig(language="none", average_words=5),
)
DOCUMENTS = [
    Document("cat", "Cats", "the cat sat on the mat", {"year": 1999, "tags": ["pet", "fur"], "open": True}),
    Document("dog", "Dogs", "the dog chased the cat", {"year": 2005, "author": {"name": "Ann"}, "open": False}),
    Document("fox", "", "a quick brown fox", {"year": 2010, "seen": "2020-05-01T00:00:00Z", "tags": []}),
    Document(
        "ün/ï çødé #1?",
        "Ünïcode",
        "naïve café ☕",
        {"score": 0.5, "nothing": None, "two words, ☕": "x", "deep": {"a": [{"b": 1}]}},
    ),
]


def point(document: Document) -> Point:
    return Point(document, document.content_hash, embed_words(document.passage))


async def fill(index: Index, documents: Sequence[Document] = DOCUMENTS) -> None:
    await index.create_collection(SPEC)
    await index.upsert("docs", [point(each) for each in documents])


async def retrieve(
    index: Index, vector: NDArray[np.float32] | None, text: str | None, **options: Any
) -> list[Candidate]:
    given = {
        "name": "docs",
        "fusion": DEFAULT_FUSION,
        "limit": 10,
        "filter_": NO_FILTER,
        "view": WHOLE_DOCUMENT,
        "min_score": None,
        "ef": None,
        "exact": False,
        **options,
    }
    return list(await index.retrieve(given.pop("name"), vector=vector, text=text, **given))


async def listed(index: Index, filter_: Filter = NO_FILTER, **options: object) -> list[str]:
    page = await index.documents("docs", filter_=filter_, limit=100, offset=None, view=WHOLE_DOCUMENT)
    return sorted(document.id for document in page.documents)


async def test_a_collection_comes_back_as_it_was_made(index: Index) -> None:
    made = await index.create_collection(SPEC)
    assert made.spec == SPEC
    assert abs((made.created - datetime.now(UTC)).total_seconds()) < 10
    assert (made.document_count, made.index_state) == (0, IndexState.READY)
    assert (await index.collection("docs")).spec == SPEC
    assert await index.collection_names() == ["docs"]


async def test_a_name_is_taken_only_once(index: Index) -> None:
    await index.create_collection(SPEC)
    with pytest.raises(AlreadyExists, match="docs"):
        await index.create_collection(SPEC)


async def test_a_deleted_collection_is_gone(index: Index) -> None:
    await fill(index)
    await index.delete_collection("docs")
    assert await index.collection_names() == []
    with pytest.raises(NotFound, match="docs"):
        await index.collection("docs")


async def test_every_call_on_an_unknown_collection_says_so(index: Index) -> None:
    vector = embed_words("x")
    calls = [
        index.collection("nope"),
        index.content_hashes("nope", ["a"]),
        index.upsert("nope", [Point(DOCUMENTS[0], "h", vector)]),
        index.document("nope", "a"),
        index.documents("nope", filter_=NO_FILTER, limit=1, offset=None, view=WHOLE_DOCUMENT),
        index.delete_documents("nope", ["a"]),
        index.delete_matching("nope", Filter(must=[Exists("x")])),
        index.delete_collection("nope"),
        retrieve(index, vector, None, name="nope"),
        retrieve(index, vector, "x", name="nope"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="nope"):
            await call


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.text.split()[0])
async def test_a_document_comes_back_as_it_was_written(index: Index, document: Document) -> None:
    await fill(index)
    stored = await index.document("docs", document.id)
    assert stored
    assert stored.document == document
    assert stored.content_hash == document.content_hash
    assert abs((stored.updated - datetime.now(UTC)).total_seconds()) < 10


async def test_an_unknown_document_is_none(index: Index) -> None:
    await fill(index)
    assert await index.document("docs", "unknown") is None


async def test_content_hashes_are_those_of_what_is_there(index: Index) -> None:
    await fill(index)
    hashes = await index.content_hashes("docs", ["cat", "unknown", "fox"])
    assert hashes == {"cat": DOCUMENTS[0].content_hash, "fox": DOCUMENTS[2].content_hash}


async def test_writing_an_id_again_replaces_the_document(index: Index) -> None:
    await fill(index)
    new = Document("cat", "New", "entirely", {"other": 1})
    await index.upsert("docs", [Point(new, new.content_hash, embed_words(new.passage))])
    stored = await index.document("docs", "cat")
    assert stored
    assert stored.document == new
    assert (await index.collection("docs")).document_count == len(DOCUMENTS)


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


async def test_what_was_not_asked_for_is_not_read(index: Index) -> None:
    await fill(index)
    page = await index.documents(
        "docs", filter_=Filter(must=[HasId(["cat"])]), limit=1, offset=None, view=DocumentView(text=False)
    )
    assert page.documents == [Document("cat", "Cats", "", DOCUMENTS[0].metadata)]
    found = await retrieve(index, embed_words("cat mat"), "cat mat", view=DocumentView(metadata=False))
    assert found[0].document.metadata == {}
    assert found[0].document.text


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Match("year", [1999, 2010]), ["cat", "fox"]),
        (Match("year", [2005]), ["dog"]),
        (Match("tags", ["fur"]), ["cat"]),
        (Match("two words, ☕", ["x"]), ["ün/ï çødé #1?"]),
        (Match("author.name", ["Ann", "Bob"]), ["dog"]),
        (Match("open", [True]), ["cat"]),
        (Match("open", [True, False]), ["cat", "dog"]),
        (Range("year", at_least=2005, less_than=2010), ["dog"]),
        (Range("year", more_than=2005), ["fox"]),
        (Range("score", at_most=0.5), ["ün/ï çødé #1?"]),
        (TimeRange("seen", start=datetime(2020, 5, 1, tzinfo=UTC)), ["fox"]),
        (TimeRange("seen", end=datetime(2020, 5, 1, tzinfo=UTC)), []),
        (Exists("tags"), ["cat"]),
        (Exists("nothing"), []),
        (HasId(["dog", "unknown"]), ["dog"]),
        (Filter(should=[Match("year", [1999]), Exists("author.name")]), ["cat", "dog"]),
    ],
)
async def test_filters_let_through_what_they_should(index: Index, condition: Condition, expected: list[str]) -> None:
    await fill(index)
    every = sorted(document.id for document in DOCUMENTS)
    assert await listed(index, Filter(must=[condition])) == expected
    assert await listed(index, Filter(must_not=[condition])) == [id_ for id_ in every if id_ not in expected]


async def test_pages_cover_every_document_once(index: Index) -> None:
    many = [Document(f"d{i}", text=f"text {i}") for i in range(25)]
    await fill(index, many)
    seen: list[str] = []
    offset = None
    while True:
        page = await index.documents("docs", filter_=NO_FILTER, limit=10, offset=offset, view=WHOLE_DOCUMENT)
        seen += [document.id for document in page.documents]
        offset = page.next_offset
        if offset is None:
            break
        assert len(page.documents) == 10
    assert sorted(seen) == sorted(document.id for document in many)


async def test_deleting_counts_what_was_there(index: Index) -> None:
    await fill(index)
    assert await index.delete_documents("docs", ["cat", "cat", "unknown"]) == 1
    assert await index.delete_documents("docs", ["cat"]) == 0
    assert await index.delete_matching("docs", Filter(must=[Range("year", at_least=2005)])) == 2
    assert await listed(index) == ["ün/ï çødé #1?"]


async def test_of_a_long_text_a_candidate_has_the_head_and_the_index_the_whole(index: Index) -> None:
    long = Document("long", text="é" * 20_000)
    await fill(index, [long, DOCUMENTS[0]])
    found = await retrieve(index, embed_words(long.passage), None)
    assert [(each.document.id, each.head_only) for each in found] == [("long", True), ("cat", False)]
    assert found[0].document.text == "é" * 8192
    texts = await index.texts("docs", ["long", "cat", "unknown"])
    assert texts == WholeTexts({"long": long.text, "cat": DOCUMENTS[0].text})
    stored = await index.document("docs", "long")
    assert stored
    assert stored.document == long
    page = await index.documents(
        "docs", filter_=Filter(must=[HasId(["long"])]), limit=5, offset=None, view=WHOLE_DOCUMENT
    )
    assert page.documents == [long]


async def test_a_page_of_texts_too_large_for_one_message_is_shorter(index: Index) -> None:
    large = [Document(f"d{i}", text=chr(97 + i) * 1_000_000) for i in range(5)]
    await index.create_collection(SPEC)
    for each in large:
        await index.upsert("docs", [Point(each, each.content_hash, embed_words("x"))])
    seen: list[Document] = []
    offset = None
    while True:
        page = await index.documents("docs", filter_=NO_FILTER, limit=5, offset=offset, view=WHOLE_DOCUMENT)
        seen += page.documents
        offset = page.next_offset
        if offset is None:
            break
    assert sorted(seen, key=lambda each: each.id) == large


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


@pytest.mark.parametrize("index", ["qdrant-client over winnow_index"], indirect=True)
async def test_whole_texts_are_given_as_far_as_one_answer_holds_them(index: Index) -> None:
    large = [Document(f"d{i}", text=chr(97 + i) * 500_000) for i in range(8)]
    await index.create_collection(SPEC)
    for each in large:
        await index.upsert("docs", [Point(each, each.content_hash, embed_words("x"))])
    wanted = ["d7", "unknown", *(f"d{i}" for i in range(7))]
    found = await index.texts("docs", wanted)
    assert list(found.texts) == ["d7", "d0", "d1", "d2"]
    assert all(text == large[int(id_[1:])].text for id_, text in found.texts.items())
    assert found.left_out == 4


async def test_an_index_that_is_not_there_is_unavailable() -> None:
    client = QdrantIndex(host="127.0.0.1", port=1, timeout_seconds=5, max_message_bytes=1024 * 1024)
    with pytest.raises(Unavailable, match="index cannot be reached"):
        await client.collection_names()
    await client.close()
