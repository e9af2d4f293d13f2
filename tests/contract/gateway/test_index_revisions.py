"""What re-embedding asks of an index: collections beside each other under one name, and which of them is what."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.contract.gateway.indexed import DOCUMENTS, SPEC, fill, point
from winnow_gateway.collections import EmbedderModel, Similarity
from winnow_gateway.documents import Document
from winnow_gateway.placements import Placement
from winnow_gateway.ports import Index, Point
from winnow_rpc.faults import Aborted, NotFound

REVISED = replace(SPEC, embedder=EmbedderModel("another-model", "b" * 64, 8, Similarity.DOT), revision="b" * 12)


def wide(document: Document) -> Point:
    return Point(
        document, document.content_hash, np.ones(8, dtype=np.float32), updated=datetime(2020, 5, 1, tzinfo=UTC)
    )


async def test_a_revision_is_kept_beside_the_first_under_the_same_name(index: Index) -> None:
    await fill(index)
    created = datetime(2021, 2, 3, tzinfo=UTC)
    made = await index.create_collection(REVISED, created=created)
    assert (made.spec, made.created) == (REVISED, created)
    await index.upsert(REVISED.stored_as, [wide(DOCUMENTS[0])])
    assert sorted(await index.stored_names("docs")) == ["docs", f"docs~{'b' * 12}"]
    assert (await index.collection("docs")).document_count == len(DOCUMENTS)
    assert (await index.collection(REVISED.stored_as)).document_count == 1
    stored = await index.document(REVISED.stored_as, DOCUMENTS[0].id)
    assert stored is not None
    assert stored.updated == datetime(2020, 5, 1, tzinfo=UTC)
    with pytest.raises(NotFound, match="'docs'"):
        await index.collection("docs~cccc")


async def test_the_roles_of_collections_move_at_once(index: Index) -> None:
    await index.create_collection(SPEC)
    await index.create_collection(REVISED)
    placements, revised = index.placements, REVISED.stored_as
    assert await placements.placement("docs") == Placement(name="docs", live="docs")
    left_behind, journal = await index.journals.make("docs"), await index.journals.make("docs")
    await placements.begin("docs", revised, left_behind)
    await placements.hold("docs")
    await placements.begin("docs", revised, journal)
    filling = Placement(name="docs", live="docs", next=revised, journal=journal)
    assert await placements.placement("docs") == filling
    with pytest.raises(Aborted):
        await placements.switch(filling)
    with pytest.raises(Aborted):
        await placements.release("docs")
    assert await placements.placement("docs") == filling
    await placements.hold("docs")
    held = replace(filling, held=True)
    assert await placements.placement("docs") == held
    await placements.release("docs")
    await placements.hold("docs")
    await placements.switch(held)
    after = await placements.placements(["docs", "others"])
    assert after["docs"] == Placement(name="docs", live=revised, former="docs")
    assert after["others"] == Placement(name="others", live="others")
    with pytest.raises(Aborted):
        await placements.switch(held)


async def test_a_collection_that_is_deleted_has_no_role_any_more(index: Index) -> None:
    await index.create_collection(SPEC)
    await index.create_collection(REVISED)
    journal = await index.journals.make("docs")
    await index.placements.begin("docs", REVISED.stored_as, journal)
    await index.delete_collection(REVISED.stored_as)
    # Where nothing is filled, nobody reads the journal either; the next run removes it.
    assert await index.placements.placement("docs") == Placement(name="docs", live="docs")
    await index.delete_collection(journal)
    assert await index.placements.placement("docs") == Placement(name="docs", live="docs")
    with pytest.raises(Aborted):
        await index.placements.hold("docs")


async def test_hashes_are_listed_by_pages(index: Index) -> None:
    await fill(index)
    found: dict[str, str] = {}
    offset: str | None = None
    pages = 0
    while offset is not None or not pages:
        page = await index.hashes("docs", limit=3, offset=offset)
        found |= page.hashes
        offset, pages = page.next_offset, pages + 1
    assert found == {each.id: each.content_hash for each in DOCUMENTS}
    assert pages == 2


async def test_a_journal_keeps_what_was_written_until_it_is_struck_out(index: Index) -> None:
    await index.create_collection(SPEC)
    journals = index.journals
    journal, other = await journals.make("docs"), await journals.make("docs")
    assert sorted(await index.stored_names("docs")) == sorted(["docs", journal, other])
    with pytest.raises(NotFound, match="'docs'"):
        await index.collection(f"{journal}x")
    written = [[f"{n}", "same", "ün/ï çødé #1?"] for n in range(7)]
    for each in written:
        await journals.add(journal, each)
    found: dict[str, Sequence[str]] = {}
    offset: str | None = None
    pages = 0
    while offset is not None or not pages:
        page = await journals.entries(journal, limit=3, offset=offset)
        # An entry that is removed leaves the following pages as they were, and one that is added is no other's.
        await journals.remove(journal, list(page.entries))
        found |= page.entries
        offset, pages = page.next_offset, pages + 1
    assert sorted(map(list, found.values())) == written
    assert pages == 3
    await journals.add(journal, ["later"])
    page = await journals.entries(journal, limit=3, offset=None)
    assert [list(entry) for entry in page.entries.values()] == [["later"]]
    assert (await journals.entries(other, limit=3, offset=None)).entries == {}
    await index.delete_collection(journal)
    for call in (
        journals.add(journal, ["x"]),
        journals.entries(journal, limit=3, offset=None),
        journals.remove(journal, [str(uuid.uuid4())]),
    ):
        with pytest.raises(NotFound, match="'docs'"):
            await call


@pytest.mark.parametrize("index", ["qdrant-client over winnow_index"], indirect=True)
async def test_a_page_of_entries_too_large_for_one_message_is_shorter(index: Index) -> None:
    journal = await index.journals.make("docs")
    for n in range(4):
        await index.journals.add(journal, [f"{n}{'x' * 1_000_000}"])
    seen: list[str] = []
    offset: str | None = None
    while len(seen) < 4:
        page = await index.journals.entries(journal, limit=10, offset=offset)
        assert page.entries
        seen += [id_[0] for entry in page.entries.values() for id_ in entry]
        offset = page.next_offset
    assert (sorted(seen), offset) == (["0", "1", "2", "3"], None)


async def test_many_documents_come_whole_even_where_one_message_cannot_hold_them(index: Index) -> None:
    large = [Document(f"large{n}", "t", "x" * 900_000, {"n": n}) for n in range(6)]
    await index.create_collection(SPEC)
    for each in large:
        await index.upsert("docs", [point(each)])
    stored = await index.stored_documents("docs", [each.id for each in large] + ["nope"])
    assert sorted((each.document for each in stored), key=lambda document: document.id) == large
    assert {each.content_hash for each in stored} == {each.content_hash for each in large}
