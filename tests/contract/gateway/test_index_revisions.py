"""What re-embedding asks of an index: collections beside each other under one name, and which of them is what."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.contract.gateway.test_index_port import DOCUMENTS, SPEC, fill, point
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
    await placements.begin("docs", revised)
    await placements.begin("docs", revised)
    filling = Placement(name="docs", live="docs", next=revised)
    assert await placements.placement("docs") == filling
    with pytest.raises(Aborted):
        await placements.switch(filling)
    with pytest.raises(Aborted):
        await placements.release("docs")
    assert await placements.placement("docs") == filling
    await placements.hold("docs")
    held = Placement(name="docs", live="docs", next=revised, held=True)
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
    await index.placements.begin("docs", REVISED.stored_as)
    await index.delete_collection(REVISED.stored_as)
    assert await index.placements.placement("docs") == Placement(name="docs", live="docs")
    with pytest.raises(Aborted):
        await index.placements.hold("docs")


async def test_hashes_are_listed_by_pages_and_by_time(index: Index) -> None:
    await fill(index)
    old = datetime(2020, 5, 1, tzinfo=UTC)
    await index.upsert("docs", [replace(point(DOCUMENTS[0]), updated=old)])
    found: dict[str, str] = {}
    offset: str | None = None
    pages = 0
    while offset is not None or not pages:
        page = await index.hashes("docs", since=None, limit=3, offset=offset)
        found |= page.hashes
        offset, pages = page.next_offset, pages + 1
    assert found == {each.id: each.content_hash for each in DOCUMENTS}
    assert pages == 2
    recent = await index.hashes("docs", since=old + timedelta(seconds=1), limit=10, offset=None)
    assert set(recent.hashes) == {each.id for each in DOCUMENTS[1:]}
    assert recent.next_offset is None
    assert len((await index.hashes("docs", since=old, limit=10, offset=None)).hashes) == len(DOCUMENTS)


async def test_many_documents_come_whole_even_where_one_message_cannot_hold_them(index: Index) -> None:
    large = [Document(f"large{n}", "t", "x" * 900_000, {"n": n}) for n in range(6)]
    await index.create_collection(SPEC)
    for each in large:
        await index.upsert("docs", [point(each)])
    stored = await index.stored_documents("docs", [each.id for each in large] + ["nope"])
    assert sorted((each.document for each in stored), key=lambda document: document.id) == large
    assert {each.content_hash for each in stored} == {each.content_hash for each in large}
