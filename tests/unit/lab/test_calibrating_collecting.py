"""What is collected for learning comes out of a set that was indexed whole, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from rich.progress import Progress

from tests.unit.lab.evaluating.fake_gateway import FakeClient
from tests.unit.lab.evaluating.made_up import DOCUMENTS, QUERIES, write_set
from winnow_client import AsyncClient, Document
from winnow_lab.calibrating.collecting import Collecting, SetSplit, collect
from winnow_rpc.faults import FailedPrecondition, Unavailable


async def collect_by(fake: FakeClient, folder: Path) -> None:
    """Collects from a set; searches fail, so that only what comes before them happens."""
    write_set(folder / "made-up", documents={**DOCUMENTS, "blank": " "})
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"only its hash counts here")
    fake.fails_at = {*QUERIES.values()}
    collecting = Collecting(
        reranker=folder / "model", embedder=None, depth=10, queries=4, data=folder / "index", cache=folder / "cache"
    )

    @asynccontextmanager
    async def services(_: Collecting) -> AsyncIterator[tuple[AsyncClient, str]]:
        yield cast("AsyncClient", fake), "sigmoid"

    with Progress(disable=True) as progress:
        await collect([SetSplit(folder / "made-up", "test")], collecting, progress, services=services)


async def test_blank_documents_which_nothing_finds_are_left_out(tmp_path: Path) -> None:
    fake = FakeClient()
    with pytest.raises(Unavailable, match="the reranker is gone"):
        await collect_by(fake, tmp_path)
    assert fake.stored.keys() == DOCUMENTS.keys()


async def test_a_refused_document_ends_it(tmp_path: Path) -> None:
    fake = FakeClient()
    fake.refused = {"river"}
    with pytest.raises(FailedPrecondition, match="river of made-up was refused: too odd"):
        await collect_by(fake, tmp_path)
    assert fake.queries == []


async def test_a_collection_of_another_set_ends_it(tmp_path: Path) -> None:
    fake = FakeClient()
    fake.exists, fake.stored = True, {"stale": Document(id="stale")}
    with pytest.raises(FailedPrecondition, match="made-up holds 9 documents and the set 8: it was filled from another"):
        await collect_by(fake, tmp_path)
    assert fake.queries == []
