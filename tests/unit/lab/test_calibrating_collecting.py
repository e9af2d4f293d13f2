"""What is collected for learning comes out of a set that was indexed whole, or not at all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.progress import Progress

from tests.unit.lab.evaluating.fake_gateway import FakeClient
from tests.unit.lab.evaluating.made_up import DOCUMENTS, QUERIES, write_set
from winnow_client import AsyncClient, Document, RetrievalKind
from winnow_lab.calibrating.collecting import Collecting, Services, SetSplit, collect, collections_of
from winnow_rpc.faults import FailedPrecondition, Unavailable


def collecting_in(folder: Path) -> Collecting:
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"only its hash counts here")
    return Collecting(
        reranker=folder / "model", embedder=None, depth=10, queries=4, data=folder / "index", cache=folder / "cache"
    )


def answered_by(fake: FakeClient) -> Services:
    @asynccontextmanager
    async def services(_: Collecting) -> AsyncIterator[tuple[AsyncClient, str]]:
        yield cast("AsyncClient", fake), "sigmoid"

    return services


async def collect_by(fake: FakeClient, folder: Path) -> None:
    """Collects from a set; searches fail, so that only what comes before them happens."""
    write_set(folder / "made-up", documents={**DOCUMENTS, "blank": " "})
    fake.fails_at = {*QUERIES.values()}
    with Progress(disable=True) as progress:
        await collect(
            [SetSplit(folder / "made-up", "test")], collecting_in(folder), progress, services=answered_by(fake)
        )


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


def test_sets_whose_names_make_one_collection_have_one_each(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("1/beir", "2/beir", "my set", "my-set", "squad", "1/beir")]
    names = collections_of(folders)
    assert names == collections_of(reversed(folders))
    assert len({*names.values()}) == len(names) == 5
    assert names[tmp_path / "squad"] == "squad"
    assert all(re.fullmatch("[0-9a-f]{8}-beir", names[folder]) for folder in folders[:2])


async def test_each_of_two_sets_of_one_name_is_searched_in_what_it_filled(tmp_path: Path) -> None:
    filled: dict[str, set[str]] = {}
    searched: dict[str, set[str]] = {}

    class Client(FakeClient):
        async def ingest(self, name: str, documents: list[Document]) -> AsyncIterator[Any]:
            filled[name] = {document.id for document in documents}
            self.stored = {}
            async for acknowledged in super().ingest(name, documents):
                yield acknowledged

        async def search(self, collection: str, query: str, **options: Any) -> Any:
            searched.setdefault(collection, set()).add(query)
            return SimpleNamespace(
                hits=[], retrieval_kind=RetrievalKind.HYBRID, reranker_fingerprint="r", embedder_fingerprint="e"
            )

    splits = []
    for number in "12":
        folder = write_set(
            tmp_path / number / "beir",
            documents={number: "made up"},
            queries={number: f"which is {number}"},
            qrels={number: {number: 1}},
        )
        splits.append(SetSplit(folder, "test"))
    with Progress(disable=True) as progress:
        await collect(splits, collecting_in(tmp_path), progress, services=answered_by(Client()))
    names = [collections_of(split.folder for split in splits)[split.folder] for split in splits]
    assert filled == dict(zip(names, [{"1"}, {"2"}], strict=True))
    assert searched == dict(zip(names, [{"which is 1"}, {"which is 2"}], strict=True))
