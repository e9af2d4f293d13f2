"""The index: Qdrant, or what speaks its protocol, through qdrant-client over gRPC.

A collection of ours is a Qdrant collection of the same name, or of the name that `placements` says, whose own metadata
holds what it was made from, so that any gateway can serve it. Each document is one point; its payload holds the
document.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from winnow_gateway.collections import Collection, CollectionSpec
from winnow_gateway.documents import DocumentView, StoredDocument, point_id
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion
from winnow_gateway.ports import Candidate, HashPage, Page, Point, WholeTexts
from winnow_gateway.qdrant_calls import MessageTooLarge, as_many_as_fit, asking
from winnow_gateway.qdrant_collections import QdrantCollections, Spread
from winnow_gateway.qdrant_connection import IndexAccess, QdrantConnection
from winnow_gateway.qdrant_filters import qdrant_filter
from winnow_gateway.qdrant_journals import QdrantJournals
from winnow_gateway.qdrant_placements import QdrantPlacements
from winnow_gateway.qdrant_points import (
    payload_keys,
    read_document,
    read_stored,
    written_points,
)
from winnow_gateway.qdrant_retrieval import Retrieval
from winnow_rpc.calling import RECONNECTING, ChannelSettings, service_config
from winnow_rpc.faults import InvalidArgument

_READS = {
    "qdrant.Collections": ["Get", "List", "ListAliases"],
    "qdrant.Points": ["Get", "Scroll", "Count", "QueryBatch"],
}
"""What is tried again while the index restarts. Writes are repeated by the ingest, which knows that it may."""


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
        client, spread = self._connection.client, spread or Spread()
        self._collections = QdrantCollections(client, timeout_seconds=timeout_seconds, spread=spread)
        self.placements = QdrantPlacements(client, timeout_seconds=timeout_seconds)
        self.journals = QdrantJournals(client, timeout_seconds=timeout_seconds, spread=spread)

    @property
    def _client(self) -> AsyncQdrantClient:
        return self._connection.client()

    async def create_collection(self, spec: CollectionSpec, *, created: datetime | None = None) -> Collection:
        """Makes a collection with its payload indexes, to its end even if the caller goes away."""
        return await self._collections.create(spec, created=created)

    async def complete_collection(self, name: str) -> Collection:
        """Makes what a collection lacks whose maker was killed, as long as it is empty."""
        return await self._collections.complete(name)

    async def collection(self, name: str) -> Collection:
        """One collection as it stands; one that is not ours counts as not there."""
        return await self._collections.collection(name)

    async def collection_names(self) -> Sequence[str]:
        """Names of all collections, ours or not."""
        return await self._collections.names()

    async def stored_names(self, name: str) -> Sequence[str]:
        """Stored names of all that there is of a collection, whatever it is for."""
        return await self._collections.stored_names(name)

    async def delete_collection(self, name: str) -> None:
        """Removes a collection and all its points."""
        await self._collections.delete(name)

    async def content_hashes(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Content hash of each of the documents that is there."""
        async with self._asking(name):
            records = await self._client.retrieve(
                name, [point_id(id_) for id_ in document_ids], with_payload=["document_id", "content_hash"]
            )
        payloads = [record.payload or {} for record in records]
        return {payload["document_id"]: payload["content_hash"] for payload in payloads}

    async def hashes(self, name: str, *, limit: int, offset: str | None) -> HashPage:
        """Content hashes of the documents, page by page."""
        async with self._asking(name):
            records, following = await self._client.scroll(
                name,
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
        structs = written_points(points, await self._collections.spec(name))
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
        wanted = keys if isinstance(keys, bool) else list(keys)

        begin, size = 0, len(points)

        async def ask(count: int) -> list[models.Record]:
            async with self._asking(name, timeout=timeout):
                return await self._client.retrieve(name, points[begin : begin + count], with_payload=wanted)

        while begin < len(points):
            size, records = await as_many_as_fit(ask, min(size, len(points) - begin))
            begin += size
            yield {str(record.id): record.payload or {} for record in records}

    async def documents(
        self, name: str, *, filter_: Filter, limit: int, offset: str | None, view: DocumentView
    ) -> Page:
        """Documents in the order of their points, from an offset that an earlier page gave; fewer than `limit` where
        one message has no room for them."""
        keys = [*payload_keys(view), "text_rest"] if view.text else payload_keys(view)

        async def ask(count: int) -> tuple[list[models.Record], object]:
            async with self._asking(name):
                return await self._client.scroll(
                    name,
                    scroll_filter=qdrant_filter(filter_),
                    limit=count,
                    offset=offset,
                    with_payload=keys,
                    with_vectors=False,
                )

        _, (records, following) = await as_many_as_fit(ask, limit)
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
            spec=await self._collections.spec(name),
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
        await self._collections.close()
        await self._connection.close()

    def _asking(self, collection: str = "", *, timeout: float | None = None) -> AbstractAsyncContextManager[None]:
        return asking(collection, timeout=self._timeout if timeout is None else min(timeout, self._timeout))
