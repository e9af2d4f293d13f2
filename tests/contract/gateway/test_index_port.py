"""One suite for all that claims to be an index: the fake of the tests, and the Qdrant client over a real server."""

from datetime import UTC, datetime

import pytest

from tests.contract.gateway.indexed import DOCUMENTS, SPEC, fill, retrieve
from tests.fakes.backends import embed_words
from winnow_gateway.collections import (
    IndexState,
)
from winnow_gateway.documents import WHOLE_DOCUMENT, Document, DocumentView
from winnow_gateway.filters import NO_FILTER, Condition, Exists, Filter, HasId, Match, Range, TimeRange
from winnow_gateway.ports import Index, Point, WholeTexts
from winnow_gateway.qdrant_index import QdrantIndex
from winnow_rpc.faults import AlreadyExists, NotFound, Unavailable


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
