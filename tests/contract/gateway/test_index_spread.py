"""How a gateway tells a Qdrant cluster where to put a new collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from winnow_gateway.collections import CollectionSpec, EmbedderModel, Similarity
from winnow_gateway.qdrant_collections import Spread
from winnow_gateway.qdrant_index import QdrantIndex

SPEC = CollectionSpec(name="docs", embedder=EmbedderModel("some-model", "a" * 64, 4, Similarity.COSINE))
KEYS = ("shard_number", "replication_factor", "write_consistency_factor")


class Stopped(Exception):
    """Nothing is behind the client here."""


@dataclass
class Recorder:
    """In the place of the connection and of its client: keeps how a collection was asked for."""

    asked: dict[str, Any] = field(default_factory=dict)

    def client(self) -> Recorder:
        return self

    async def create_collection(self, _: str, **how: Any) -> None:
        self.asked = how
        raise Stopped

    async def close(self) -> None:
        pass


async def asked_for(monkeypatch: pytest.MonkeyPatch, spread: Spread | None) -> Mapping[str, Any]:
    recorder = Recorder()
    monkeypatch.setattr("winnow_gateway.qdrant_index.QdrantConnection", lambda **_: recorder)
    index = QdrantIndex(host="127.0.0.1", port=1, timeout_seconds=5, max_message_bytes=1024 * 1024, spread=spread)
    with pytest.raises(Stopped):
        await index.create_collection(SPEC)
    await index.close()
    return {key: recorder.asked[key] for key in KEYS}


async def test_a_new_collection_is_cut_and_copied_as_the_gateway_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await asked_for(monkeypatch, Spread(shards=3, replicas=2, write_consistency=1))
    assert found == dict(zip(KEYS, (3, 2, 1), strict=True))


async def test_what_the_gateway_is_not_told_the_index_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asked_for(monkeypatch, None) == dict.fromkeys(KEYS)
