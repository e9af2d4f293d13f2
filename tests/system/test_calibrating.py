"""Candidates for learning, collected from the real processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.system.running import Up
from winnow_client import AsyncClient
from winnow_lab.calibrating.collecting import Collecting, SetSplit, activation_of, collect

DOCUMENTS = {
    "tea": "Water for green tea should not boil.",
    "dog": "A puppy is a young dog.",
    "code": "The error code is XKCD-4711.",
    "stop": "to be or not to be",
}
QUERIES = {"canine": "dog", "boiling water": "tea", "XKCD-4711": "code"}


@pytest.fixture
def collecting(tmp_path: Path) -> tuple[SetSplit, Collecting]:
    folder, model = tmp_path / "calibrating", tmp_path / "model"
    (folder / "qrels").mkdir(parents=True)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"only its hash counts here")
    documents = [json.dumps({"_id": id_, "title": "", "text": text}) + "\n" for id_, text in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("".join(documents))
    queries = [json.dumps({"_id": text, "text": text}) + "\n" for text in QUERIES]
    (folder / "queries.jsonl").write_text("".join(queries))
    rows = [f"{query}\t{id_}\t1\n" for query, id_ in QUERIES.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return SetSplit(folder, "test"), Collecting(
        reranker=model, embedder=None, depth=10, queries=2, data=tmp_path / "index", cache=tmp_path / "cache"
    )


async def test_candidates_are_collected_once_with_what_every_stage_thought(
    up: Up, collecting: tuple[SetSplit, Collecting]
) -> None:
    split, what = collecting
    started = 0

    @asynccontextmanager
    async def running(_: Collecting) -> AsyncIterator[tuple[AsyncClient, str]]:
        nonlocal started
        started += 1
        activation = await activation_of(up.addresses["reranker"])
        async with AsyncClient(up.addresses["gateway"]) as client:
            yield client, activation
            await client.delete_collection("calibrating")

    with Progress(disable=True) as progress:
        (collected,) = await collect([split], what, progress, services=running)
        (again,) = await collect([split], what, progress, services=running)
    assert started == 1, "what is there is not searched again"
    assert again == collected
    assert (collected.source.activation, collected.source.depth) == ("sigmoid", 10)
    assert len(collected.queries) == 2
    for query in collected.queries:
        assert query.judgements == {QUERIES[query.query]: 1.0}
        assert {candidate.id for candidate in query.candidates} == set(DOCUMENTS)
        assert sorted(candidate.dense.rank for candidate in query.candidates if candidate.dense) == [1, 2, 3, 4]
        found = [candidate.id for candidate in query.candidates if candidate.lexical]
        assert found == {"canine": [], "boiling water": ["tea"], "XKCD-4711": ["code"]}[query.query]
        assert all(0 < candidate.rerank < 1 for candidate in query.candidates)
