"""Journals as Qdrant collections: an entry is a point without a vector."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from qdrant_client import AsyncQdrantClient, models

from winnow_gateway.placements import Role, stored_name
from winnow_gateway.ports import JournalPage
from winnow_gateway.qdrant_calls import as_many_as_fit, asking
from winnow_gateway.qdrant_collections import Spread

_IDS = "document_ids"


class QdrantJournals:
    """Implements `ports.Journals`."""

    def __init__(self, client: Callable[[], AsyncQdrantClient], *, timeout_seconds: float, spread: Spread) -> None:
        self._client = client
        self._timeout = timeout_seconds
        self._spread = spread

    async def make(self, name: str) -> str:
        """A new and empty journal for a collection; returns its stored name."""
        journal = stored_name(name, f"{Role.JOURNAL.value}-{uuid.uuid4().hex}")
        async with asking(name, timeout=self._timeout):
            await self._client().create_collection(
                journal,
                # The embedded index holds no collection that could hold no vector at all; this one is never given.
                sparse_vectors_config={"none": models.SparseVectorParams()},
                shard_number=self._spread.shards or None,
                replication_factor=self._spread.replicas or None,
                write_consistency_factor=self._spread.write_consistency or None,
            )
        return journal

    async def add(self, journal: str, document_ids: Sequence[str]) -> None:
        """Adds one entry; returns once it is on disk."""
        entry = models.PointStruct(id=str(uuid.uuid4()), vector={}, payload={_IDS: list(document_ids)})
        async with asking(journal, timeout=self._timeout):
            await self._client().upsert(journal, [entry], wait=True)

    async def entries(self, journal: str, *, limit: int, offset: str | None) -> JournalPage:
        """Entries, page by page, in the order of their ids, which is none."""

        async def ask(count: int) -> tuple[list[models.Record], object]:
            async with asking(journal, timeout=self._timeout):
                return await self._client().scroll(
                    journal, limit=count, offset=offset, with_payload=[_IDS], with_vectors=False
                )

        _, (records, following) = await as_many_as_fit(ask, limit)
        entries = {str(record.id): (record.payload or {})[_IDS] for record in records}
        return JournalPage(entries, str(following) if following is not None else None)

    async def remove(self, journal: str, entries: Sequence[str]) -> None:
        """Removes entries by their ids."""
        async with asking(journal, timeout=self._timeout):
            await self._client().delete(journal, models.PointIdsList(points=list(entries)), wait=True)
