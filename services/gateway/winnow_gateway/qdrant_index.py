"""The index: Qdrant, or what speaks its protocol, through qdrant-client over gRPC.

A collection of ours is a Qdrant collection of the same name, or of the name that `placements` says, whose own metadata
holds what it was made from, so that any gateway can serve it. Each document is one point; its payload holds the
document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from winnow_gateway.collection_metadata import read_spec, write_spec
from winnow_gateway.collections import Collection, CollectionSpec, IndexState, MetadataType
from winnow_gateway.documents import DocumentView, StoredDocument, point_id
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion
from winnow_gateway.placements import split_stored
from winnow_gateway.ports import Candidate, HashPage, Page, Point, WholeTexts
from winnow_gateway.qdrant_calls import MessageTooLarge, asking, no_collection
from winnow_gateway.qdrant_connection import IndexAccess, QdrantConnection
from winnow_gateway.qdrant_filters import metadata_key, qdrant_filter
from winnow_gateway.qdrant_placements import QdrantPlacements
from winnow_gateway.qdrant_points import (
    dense_params,
    payload_keys,
    read_document,
    read_stored,
    sparse_params,
    written_points,
)
from winnow_gateway.qdrant_retrieval import Retrieval
from winnow_rpc.calling import RECONNECTING, ChannelSettings, service_config
from winnow_rpc.faults import AlreadyExists, Fault, InvalidArgument

_SCHEMAS = {
    MetadataType.KEYWORD: models.PayloadSchemaType.KEYWORD,
    MetadataType.INTEGER: models.PayloadSchemaType.INTEGER,
    MetadataType.FLOAT: models.PayloadSchemaType.FLOAT,
    MetadataType.BOOL: models.PayloadSchemaType.BOOL,
    MetadataType.DATETIME: models.PayloadSchemaType.DATETIME,
}
_READS = {
    "qdrant.Collections": ["Get", "List", "ListAliases"],
    "qdrant.Points": ["Get", "Scroll", "Count", "QueryBatch"],
}
"""What is tried again while the index restarts. Writes are repeated by the ingest, which knows that it may."""

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


class QdrantIndex:
    """Implements `ports.Index`."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        timeout_seconds: float,
        max_message_bytes: int,
        access: IndexAccess | None = None,
        spread: Spread | None = None,
    ) -> None:
        self._connection = QdrantConnection(
            host=host,
            port=port,
            options={
                "grpc.max_receive_message_length": max_message_bytes,
                "grpc.max_send_message_length": max_message_bytes,
                "grpc.service_config": service_config(ChannelSettings(target=f"{host}:{port}", idempotent=_READS)),
                **RECONNECTING,
            },
            access=access or IndexAccess(),
        )
        self._timeout = timeout_seconds
        # The rest is for what else an answer holds.
        self._most_text_bytes = max_message_bytes * 3 // 4
        self._spread = spread or Spread()
        # What each collection was made from, as last read. The catalog reads it anew every few seconds, so a collection
        # that another gateway made anew is mistaken for its former self no longer here than there.
        self._specs: dict[str, CollectionSpec] = {}
        self._making: set[asyncio.Task[Collection]] = set()
        self.placements = QdrantPlacements(self._connection.client, timeout_seconds=timeout_seconds)

    @property
    def _client(self) -> AsyncQdrantClient:
        return self._connection.client()

    async def create_collection(self, spec: CollectionSpec, *, created: datetime | None = None) -> Collection:
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
                await self._client.create_collection(
                    stored,
                    vectors_config=dense_params(spec),
                    sparse_vectors_config=sparse_params(spec),
                    hnsw_config=models.HnswConfigDiff(m=spec.hnsw.m, ef_construct=spec.hnsw.ef_construct),
                    metadata=write_spec(spec, created=created),
                    shard_number=self._spread.shards or None,
                    replication_factor=self._spread.replicas or None,
                    write_consistency_factor=self._spread.write_consistency or None,
                )
            for field in spec.metadata_fields:
                async with self._asking(stored):
                    await self._client.create_payload_index(
                        stored, metadata_key(field.key), field_schema=_SCHEMAS[field.type], wait=True
                    )
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
            await self.delete_collection(stored)

    async def collection(self, name: str) -> Collection:
        """One collection as it stands; one that is not ours counts as not there.

        A metadata field that it was to index and does not, since its making was cut short, is none of its fields: it
        has to be searched as one that is not indexed.
        """
        async with self._asking(name):
            info = await self._client.get_collection(name)
        read = read_spec(name, info.config.metadata or {})
        if read is None:
            raise no_collection(name)
        spec, created = read
        fields = [field for field in spec.metadata_fields if metadata_key(field.key) in info.payload_schema]
        spec = replace(spec, metadata_fields=tuple(fields))
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
        )

    async def collection_names(self) -> Sequence[str]:
        """Names of all collections, ours or not."""
        async with self._asking():
            listed = await self._client.get_collections()
        return [each.name for each in listed.collections]

    async def stored_names(self, name: str) -> Sequence[str]:
        """Stored names of all that there is of a collection, whatever it is for."""
        return [stored for stored in await self.collection_names() if split_stored(stored)[0] == name]

    async def delete_collection(self, name: str) -> None:
        """Removes a collection and all its points."""
        self._specs.pop(name, None)
        async with self._asking(name):
            # Qdrant answers false, not an error, when there was nothing to delete.
            if not await self._client.delete_collection(name):
                raise no_collection(name)

    async def content_hashes(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Content hash of each of the documents that is there."""
        async with self._asking(name):
            records = await self._client.retrieve(
                name, [point_id(id_) for id_ in document_ids], with_payload=["document_id", "content_hash"]
            )
        payloads = [record.payload or {} for record in records]
        return {payload["document_id"]: payload["content_hash"] for payload in payloads}

    async def hashes(self, name: str, *, since: datetime | None, limit: int, offset: str | None) -> HashPage:
        """Content hashes of the documents, page by page; `since`: of those that were written then or later."""
        written = models.FieldCondition(key="updated", range=models.DatetimeRange(gte=since)) if since else None
        async with self._asking(name):
            records, following = await self._client.scroll(
                name,
                scroll_filter=models.Filter(must=[written]) if written else None,
                limit=limit,
                offset=offset,
                with_payload=["document_id", "content_hash"],
                with_vectors=False,
            )
        payloads = [record.payload or {} for record in records]
        found = {payload["document_id"]: payload["content_hash"] for payload in payloads}
        return HashPage(found, str(following) if following is not None else None)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Writes points; returns once they are on disk."""
        structs = written_points(points, await self._spec(name))
        async with self._asking(name):
            await self._client.upsert(name, structs, wait=True)

    async def document(self, name: str, document_id: str) -> StoredDocument | None:
        """One document, None if it is not there."""
        found = await self.stored_documents(name, [document_id])
        return found[0] if found else None

    async def stored_documents(self, name: str, document_ids: Sequence[str]) -> Sequence[StoredDocument]:
        """Those of the documents that are there, whole, in no order."""
        points = [point_id(id_) for id_ in document_ids]
        async with aclosing(self._payloads(name, points, True)) as parts:
            return [read_stored(payload) async for part in parts for payload in part.values()]

    async def texts(self, name: str, document_ids: Sequence[str]) -> WholeTexts:
        """The whole text of each of the documents that is there; the first of them, if all are too much for one
        answer."""
        points = [point_id(id_) for id_ in document_ids]
        texts: dict[str, str] = {}
        size = 0
        async with aclosing(self._payloads(name, points, ["document_id", "text", "text_rest"])) as parts:
            async for part in parts:
                for payload in (part[point] for point in points if point in part):
                    document = read_document(payload)
                    size += len(document.text.encode())
                    if size > self._most_text_bytes:
                        return WholeTexts(texts, len(document_ids) - document_ids.index(document.id))
                    texts[document.id] = document.text
        return WholeTexts(texts)

    async def _payloads(
        self, name: str, points: Sequence[str], keys: Sequence[str] | bool, *, timeout: float | None = None
    ) -> AsyncGenerator[Mapping[str, dict[str, Any]], None]:
        """Payloads by point, of those that are there: in as many parts as they need messages, in the given order."""
        begin, size = 0, len(points)
        while begin < len(points):
            part = points[begin : begin + size]
            try:
                async with self._asking(name, timeout=timeout):
                    records = await self._client.retrieve(
                        name, part, with_payload=keys if isinstance(keys, bool) else list(keys)
                    )
            except MessageTooLarge:
                if len(part) == 1:
                    raise
                size = len(part) // 2
                continue
            begin += len(part)
            yield {str(record.id): record.payload or {} for record in records}

    async def documents(
        self, name: str, *, filter_: Filter, limit: int, offset: str | None, view: DocumentView
    ) -> Page:
        """Documents in the order of their points, from an offset that an earlier page gave."""
        try:
            async with self._asking(name):
                records, following = await self._client.scroll(
                    name,
                    scroll_filter=qdrant_filter(filter_),
                    limit=limit,
                    offset=offset,
                    with_payload=[*payload_keys(view), "text_rest"] if view.text else payload_keys(view),
                    with_vectors=False,
                )
        except MessageTooLarge:
            if limit == 1:
                raise
            # So many large texts do not fit into one message; a page may be shorter than asked for.
            return await self.documents(name, filter_=filter_, limit=limit // 2, offset=offset, view=view)
        return Page(
            [read_document(record.payload or {}) for record in records],
            str(following) if following is not None else None,
        )

    async def delete_documents(self, name: str, document_ids: Sequence[str]) -> int:
        """Deletes by id; returns how many were there."""
        points: list[models.ExtendedPointId] = [point_id(id_) for id_ in dict.fromkeys(document_ids)]
        async with self._asking(name):
            there = await self._client.retrieve(name, points, with_payload=False)
            if there:
                await self._client.delete(name, models.PointIdsList(points=[each.id for each in there]), wait=True)
        return len(there)

    async def delete_matching(self, name: str, filter_: Filter) -> int:
        """Deletes what satisfies the filter; returns how many did just before."""
        translated = qdrant_filter(filter_)
        if translated is None:
            raise InvalidArgument("an empty filter would delete everything", field="filter")
        async with self._asking(name):
            counted = await self._client.count(name, translated, exact=True)
            await self._client.delete(name, models.FilterSelector(filter=translated), wait=True)
        return counted.count

    async def retrieve(
        self,
        name: str,
        *,
        vector: NDArray[np.float32] | None,
        text: str | None,
        fusion: Fusion,
        limit: int,
        filter_: Filter,
        view: DocumentView,
        min_score: float | None,
        ef: int | None,
        exact: bool,
        timeout: float | None = None,
    ) -> Sequence[Candidate]:
        """The best documents by falling score, ties by document id."""
        retrieval = Retrieval(
            spec=await self._spec(name),
            vector=vector,
            text=text,
            fusion=fusion,
            limit=limit,
            filter=filter_,
            min_score=min_score,
            ef=ef,
            exact=exact,
        )
        keys = payload_keys(view)
        try:
            orders = await self._orders(name, retrieval.queries(keys), timeout)
        except MessageTooLarge:
            # What they hold is too much for one message: at first the orders alone.
            orders = await self._orders(name, retrieval.queries([]), timeout)
            payloads: dict[str, dict[str, Any]] = {}
            points = [str(point.id) for point in orders[0]]
            async with aclosing(self._payloads(name, points, keys, timeout=timeout)) as parts:
                async for part in parts:
                    payloads |= part
            orders[0] = [
                point.model_copy(update={"payload": payloads[str(point.id)]})
                for point in orders[0]
                if str(point.id) in payloads
            ]
        return retrieval.candidates(orders)

    async def _orders(
        self, name: str, queries: Sequence[models.QueryRequest], timeout: float | None
    ) -> list[list[models.ScoredPoint]]:
        async with self._asking(name, timeout=timeout):
            answers = await self._client.query_batch_points(name, queries)
        return [answer.points for answer in answers]

    async def close(self) -> None:
        """Closes the connection, once the collections that are being made are."""
        if self._making:
            await asyncio.wait(self._making, timeout=self._timeout)
        await self._connection.close()

    async def _spec(self, name: str) -> CollectionSpec:
        if name not in self._specs:
            await self.collection(name)
        return self._specs[name]

    def _asking(self, collection: str = "", *, timeout: float | None = None) -> AbstractAsyncContextManager[None]:
        return asking(collection, timeout=self._timeout if timeout is None else min(timeout, self._timeout))
