"""The sizes that `winnow plan` states are those that the real index comes to, filled as the gateway fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from winnow_client.cli.sizing import Workload, index_size
from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_gateway.collections import CollectionSpec, EmbedderModel, LexicalConfig, Similarity
from winnow_gateway.documents import Document
from winnow_gateway.ports import Point
from winnow_gateway.qdrant_index import QdrantIndex

BYTES_PER_TOKEN = 3.6
"""Of this corpus, whose names of modules and functions take many tokens: counted with the default model's tokenizer."""
PARTS = {
    "vector_storage-dense": "vectors",
    "vector_index-dense": "graph",
    "payload_storage": "documents",
    "vector_storage-bm25": "bm25",
    "vector_index-bm25": "bm25",
    "id_tracker": "ids",
    "wal": "log",
}


def _texts() -> list[tuple[str, str]]:
    return [(document.title, document.text) for document in stdlib_documents()]


async def _fill(port: int, count: int, dimension: int, texts: list[tuple[str, str]]) -> QdrantIndex:
    index = QdrantIndex(host="127.0.0.1", port=port, timeout_seconds=60, max_message_bytes=32 * 2**20)
    embedder = EmbedderModel("a model", "f" * 64, dimension, Similarity.COSINE)
    await index.create_collection(CollectionSpec(name="c", embedder=embedder, lexical=LexicalConfig()))
    random = np.random.default_rng(0)
    for start in range(0, count, 64):
        documents = [
            Document(id=f"library/{n}", title=texts[n % len(texts)][0], text=texts[n % len(texts)][1])
            for n in range(start, min(count, start + 64))
        ]
        vectors = random.standard_normal((len(documents), dimension)).astype(np.float32)
        await index.upsert("c", [Point(*each) for each in zip(documents, ["0" * 32] * 64, vectors, strict=False)])
    async with asyncio.timeout(100):
        while (await index.collection("c")).index_state.value != "ready":  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)
    return index


def _on_disk(data: Path) -> dict[str, int]:
    """Bytes of a collection, holes left out, by the part of the plan that they belong to."""
    found = dict.fromkeys(PARTS.values(), 0)
    for path in data.rglob("*"):
        if path.is_file():
            part = next((part for name, part in PARTS.items() if name in str(path.relative_to(data))), None)
            if part:
                found[part] += path.stat().st_blocks * 512
    return found


def _resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


def _workload(count: int, dimension: int, texts: list[tuple[str, str]]) -> Workload:
    used = [texts[n % len(texts)] for n in range(count)]
    tokens = sum(len(f"{title}\n{text}".encode()) for title, text in used) / count / BYTES_PER_TOKEN
    return Workload(documents=count, dimension=dimension, tokens=tokens)


async def test_a_collection_takes_the_disk_that_was_planned(index_process: Callable[..., Any]) -> None:
    count, dimension, texts = 2000, 256, _texts()
    # So low that there is a graph even of these few.
    index = index_process("--indexing-threshold-kb", "500")
    client = await _fill(index.port, count, dimension, texts)
    await client.close()
    index.stop()
    planned, found = index_size(_workload(count, dimension, texts)).parts, _on_disk(index.data)
    assert found["vectors"] == pytest.approx(planned["vectors"], rel=0.05)
    assert found["graph"] == pytest.approx(planned["graph"], rel=0.3)
    assert found["documents"] == pytest.approx(planned["documents"], rel=0.3)
    assert found["bm25"] == pytest.approx(planned["bm25"], rel=0.35)
    assert found["log"] <= planned["log"]
    data = sum(size for part, size in found.items() if part != "log")
    assert data == pytest.approx(sum(planned.values()) - planned["log"], rel=0.15)


@pytest.mark.slow
async def test_an_index_takes_the_memory_that_was_planned(index_process: Callable[..., Any]) -> None:
    count, dimension, texts = 20_000, 384, _texts()
    index = index_process()
    client = await _fill(index.port, count, dimension, texts)
    await client.close()
    index.stop()
    # A fresh process: what one keeps of an ingest is its own affair.
    index.start()
    client = QdrantIndex(host="127.0.0.1", port=index.port, timeout_seconds=60, max_message_bytes=32 * 2**20)
    random = np.random.default_rng(1)
    for _ in range(300):
        query = random.standard_normal(dimension).tolist()
        await client._client.query_points("c", query=query, using="dense", limit=100, with_payload=True)
    await client.close()
    assert _resident(index.pid) == pytest.approx(index_size(_workload(count, dimension, texts)).memory, rel=0.15)
