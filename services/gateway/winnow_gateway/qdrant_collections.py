"""The index's collections: made whole or not at all, described as they are, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from qdrant_client import AsyncQdrantClient, models

from winnow_gateway.collection_metadata import read_spec, write_spec
from winnow_gateway.collections import Collection, CollectionSpec, IndexState, MetadataField, MetadataType
from winnow_gateway.placements import split_stored
from winnow_gateway.qdrant_calls import asking, no_collection
from winnow_gateway.qdrant_filters import metadata_key
from winnow_gateway.qdrant_points import dense_params, sparse_params
from winnow_rpc.faults import AlreadyExists, Fault

_SCHEMAS = {
    MetadataType.KEYWORD: models.PayloadSchemaType.KEYWORD,
    MetadataType.INTEGER: models.PayloadSchemaType.INTEGER,
    MetadataType.FLOAT: models.PayloadSchemaType.FLOAT,
    MetadataType.BOOL: models.PayloadSchemaType.BOOL,
    MetadataType.DATETIME: models.PayloadSchemaType.DATETIME,
}
_STATES = {
    models.CollectionStatus.GREEN: IndexState.READY,
    models.CollectionStatus.YELLOW: IndexState.BUILDING,
    models.CollectionStatus.GREY: IndexState.BUILDING,
    models.CollectionStatus.RED: IndexState.FAILED,
}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How new collections lie on the nodes of a cluster; 0 leaves it to the index."""

    shards: int = 0
    """Parts of a collection."""
    replicas: int = 0
    """Copies of each part, on as many nodes."""
    write_consistency: int = 0
    """Copies that have to hold a write before it is acknowledged."""


class QdrantCollections:
    """Makes, describes and deletes collections, by their stored names."""

    def __init__(self, client: Callable[[], AsyncQdrantClient], *, timeout_seconds: float, spread: Spread) -> None:
        self._client = client
        self._timeout = timeout_seconds
        self._spread = spread
        # What each collection was made from, as last read. The catalog reads it anew every few seconds, so a collection
        # that another gateway made anew is mistaken for its former self no longer here than there.
        self._specs: dict[str, CollectionSpec] = {}
        self._making: set[asyncio.Task[Collection]] = set()

    async def create(self, spec: CollectionSpec, *, created: datetime | None = None) -> Collection:
        """Makes a collection with its payload indexes, which must be there before HNSW is built.

        Half of a collection would be worse than none: it is made to its end even if the caller goes away.
        """
        making = asyncio.create_task(self._make(spec, created or datetime.now(UTC)), name=f"make {spec.stored_as}")
        self._making.add(making)
        making.add_done_callback(self._making.discard)
        return await asyncio.shield(making)

    async def _make(self, spec: CollectionSpec, created: datetime) -> Collection:
        stored = spec.stored_as
        try:
            async with self._asking(stored):
                await self._client().create_collection(
                    stored,
                    vectors_config=dense_params(spec),
                    sparse_vectors_config=sparse_params(spec),
                    hnsw_config=models.HnswConfigDiff(m=spec.hnsw.m, ef_construct=spec.hnsw.ef_construct),
                    metadata=write_spec(spec, created=created),
                    shard_number=self._spread.shards or None,
                    replication_factor=self._spread.replicas or None,
                    write_consistency_factor=self._spread.write_consistency or None,
                )
            await self._index_fields(stored, spec.metadata_fields)
        except AlreadyExists:
            raise
        except Fault:
            # An index that fails here too keeps what it has, which `collection` describes as it is.
            with suppress(Fault):
                await self._unmake(stored, created)
            raise
        return await self.collection(stored)

    async def _unmake(self, stored: str, created: datetime) -> None:
        # Where no answer came, another gateway may have been first, and the collection is that one's.
        if (await self.collection(stored)).created == created:
            await self.delete(stored)

    async def _index_fields(self, stored: str, fields: Sequence[MetadataField]) -> None:
        for field in fields:
            async with self._asking(stored):
                await self._client().create_payload_index(
                    stored, metadata_key(field.key), field_schema=_SCHEMAS[field.type], wait=True
                )

    async def complete(self, name: str) -> Collection:
        """Makes the payload indexes that a collection lacks whose maker was killed, as long as it is empty.

        Once there are documents it is too late: Qdrant's graph would be older than the index, and lose what fits.
        """
        found = await self.collection(name)
        if not found.unindexed or found.document_count:
            return found
        await self._index_fields(name, found.unindexed)
        return await self.collection(name)

    async def collection(self, name: str) -> Collection:
        """One collection as it stands; one that is not ours counts as not there.

        A metadata field that it was to index and does not is none of its fields: it has to be searched as one that is
        not indexed.
        """
        async with self._asking(name):
            info = await self._client().get_collection(name)
        read = read_spec(name, info.config.metadata or {})
        if read is None:
            raise no_collection(name)
        spec, created = read
        asked = spec.metadata_fields
        spec = replace(spec, metadata_fields=tuple(f for f in asked if metadata_key(f.key) in info.payload_schema))
        self._specs[name] = spec
        documents, indexed = info.points_count or 0, info.indexed_vectors_count or 0
        if spec.lexical:
            # The index counts every sparse vector as indexed from the start, and each document has one.
            indexed = max(0, indexed - documents)
        return Collection(
            spec=spec,
            created=created,
            document_count=documents,
            indexed_vector_count=indexed,
            index_state=_STATES[info.status],
            unindexed=tuple(field for field in asked if field not in spec.metadata_fields),
        )

    async def names(self) -> Sequence[str]:
        """Names of all collections, ours or not."""
        async with self._asking():
            listed = await self._client().get_collections()
        return [each.name for each in listed.collections]

    async def stored_names(self, name: str) -> Sequence[str]:
        """Stored names of all that there is of a collection, whatever it is for."""
        return [stored for stored in await self.names() if split_stored(stored)[0] == name]

    async def delete(self, name: str) -> None:
        """Removes a collection and all its points."""
        self._specs.pop(name, None)
        async with self._asking(name):
            # Qdrant answers false, not an error, when there was nothing to delete.
            if not await self._client().delete_collection(name):
                raise no_collection(name)

    async def spec(self, name: str) -> CollectionSpec:
        """What a collection was made from, as last read."""
        if name not in self._specs:
            await self.collection(name)
        return self._specs[name]

    async def close(self) -> None:
        """Waits for the collections that are being made."""
        if self._making:
            await asyncio.wait(self._making, timeout=self._timeout)

    def _asking(self, collection: str = "") -> AbstractAsyncContextManager[None]:
        return asking(collection, timeout=self._timeout)
