"""The index: Qdrant, or what speaks its protocol, through qdrant-client over gRPC.

A collection of ours is a Qdrant collection of the same name whose own metadata holds what it was made from, so that any
gateway can serve it. Each document is one point; its payload holds the document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, context_headers, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from winnow_gateway.collection_metadata import read_spec, write_spec
from winnow_gateway.collections import Collection, CollectionSpec, IndexState, MetadataType, Similarity
from winnow_gateway.documents import Document, DocumentView, StoredDocument, point_id, split_text
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion
from winnow_gateway.ports import Candidate, Page, Point
from winnow_gateway.qdrant_filters import METADATA, metadata_key, qdrant_filter
from winnow_rpc import telemetry
from winnow_rpc.calling import ChannelSettings, service_config
from winnow_rpc.faults import (
    AlreadyExists,
    DeadlineExceeded,
    Fault,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from winnow_rpc.status import fault_from_rpc_error

VECTOR = "dense"
"""Name of the bi-encoder's vector in every collection."""

_DISTANCES = {
    Similarity.COSINE: models.Distance.COSINE,
    Similarity.DOT: models.Distance.DOT,
    Similarity.EUCLIDEAN: models.Distance.EUCLID,
    Similarity.MANHATTAN: models.Distance.MANHATTAN,
}
_LESS_IS_NEARER = {models.Distance.EUCLID, models.Distance.MANHATTAN}
_SCHEMAS = {
    MetadataType.KEYWORD: models.PayloadSchemaType.KEYWORD,
    MetadataType.INTEGER: models.PayloadSchemaType.INTEGER,
    MetadataType.FLOAT: models.PayloadSchemaType.FLOAT,
    MetadataType.BOOL: models.PayloadSchemaType.BOOL,
    MetadataType.DATETIME: models.PayloadSchemaType.DATETIME,
}
_READS = {
    "qdrant.Collections": ["Get", "List"],
    "qdrant.Points": ["Get", "Scroll", "Count", "Query"],
}
"""What is tried again while the index restarts. Writes are repeated by the ingest, which knows that it may."""

_STATES = {
    models.CollectionStatus.GREEN: IndexState.READY,
    models.CollectionStatus.YELLOW: IndexState.BUILDING,
    models.CollectionStatus.GREY: IndexState.BUILDING,
    models.CollectionStatus.RED: IndexState.FAILED,
}


class QdrantIndex:
    """Implements `ports.Index`."""

    def __init__(self, *, host: str, port: int, timeout_seconds: float, max_message_bytes: int) -> None:
        self._client = AsyncQdrantClient(
            host=host,
            grpc_port=port,
            prefer_grpc=True,
            # It would ask over HTTP, which nothing else here needs.
            check_compatibility=False,
            grpc_options={
                "grpc.max_receive_message_length": max_message_bytes,
                "grpc.max_send_message_length": max_message_bytes,
                "grpc.service_config": service_config(ChannelSettings(target=f"{host}:{port}", idempotent=_READS)),
                "grpc.initial_reconnect_backoff_ms": 100,
                "grpc.max_reconnect_backoff_ms": 1000,
            },
        )
        self._timeout = timeout_seconds
        # Which way a collection's scores point never changes while the collection lives.
        self._distances: dict[str, models.Distance] = {}

    async def create_collection(self, spec: CollectionSpec) -> Collection:
        """Makes a collection with its payload indexes, which must be there before HNSW is built."""
        async with self._asking(spec.name):
            await self._client.create_collection(
                spec.name,
                vectors_config={
                    VECTOR: models.VectorParams(
                        size=spec.embedder.dimension, distance=_DISTANCES[spec.embedder.similarity]
                    )
                },
                hnsw_config=models.HnswConfigDiff(m=spec.hnsw.m, ef_construct=spec.hnsw.ef_construct),
                metadata=write_spec(spec, created=datetime.now(UTC)),
            )
        try:
            for field in spec.metadata_fields:
                async with self._asking(spec.name):
                    await self._client.create_payload_index(
                        spec.name, metadata_key(field.key), field_schema=_SCHEMAS[field.type], wait=True
                    )
        except Fault:
            # Half of a collection would be worse than none.
            await self.delete_collection(spec.name)
            raise
        return await self.collection(spec.name)

    async def collection(self, name: str) -> Collection:
        """One collection as it stands; one that is not ours counts as not there."""
        async with self._asking(name):
            info = await self._client.get_collection(name)
        read = read_spec(name, info.config.metadata or {})
        if read is None:
            raise _no_collection(name)
        spec, created = read
        self._distances[name] = _DISTANCES[spec.embedder.similarity]
        return Collection(
            spec=spec,
            created=created,
            document_count=info.points_count or 0,
            indexed_vector_count=info.indexed_vectors_count or 0,
            index_state=_STATES[info.status],
        )

    async def collection_names(self) -> Sequence[str]:
        """Names of all collections, ours or not."""
        async with self._asking():
            listed = await self._client.get_collections()
        return [each.name for each in listed.collections]

    async def delete_collection(self, name: str) -> None:
        """Removes a collection and all its points."""
        self._distances.pop(name, None)
        async with self._asking(name):
            # Qdrant answers false, not an error, when there was nothing to delete.
            if not await self._client.delete_collection(name):
                raise _no_collection(name)

    async def content_hashes(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Content hash of each of the documents that is there."""
        async with self._asking(name):
            records = await self._client.retrieve(
                name, [point_id(id_) for id_ in document_ids], with_payload=["document_id", "content_hash"]
            )
        payloads = [record.payload or {} for record in records]
        return {payload["document_id"]: payload["content_hash"] for payload in payloads}

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Writes points; returns once they are on disk."""
        now = datetime.now(UTC).isoformat()
        structs = [
            models.PointStruct(
                id=point_id(point.document.id),
                vector={VECTOR: point.vector.tolist()},
                payload={**_payload(point.document), "content_hash": point.content_hash, "updated": now},
            )
            for point in points
        ]
        async with self._asking(name):
            await self._client.upsert(name, structs, wait=True)

    async def document(self, name: str, document_id: str) -> StoredDocument | None:
        """One document, None if it is not there."""
        async with self._asking(name):
            records = await self._client.retrieve(name, [point_id(document_id)], with_payload=True)
        if not records:
            return None
        payload = records[0].payload or {}
        return StoredDocument(_document(payload), payload["content_hash"], datetime.fromisoformat(payload["updated"]))

    async def texts(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        """The whole text of each of the documents that is there."""
        async with self._asking(name):
            records = await self._client.retrieve(
                name, [point_id(id_) for id_ in document_ids], with_payload=["document_id", "text", "text_rest"]
            )
        found = [_document(record.payload or {}) for record in records]
        return {document.id: document.text for document in found}

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
                    with_payload=[*_selector(view), "text_rest"] if view.text else _selector(view),
                    with_vectors=False,
                )
        except ResourceExhausted:
            if limit == 1:
                raise
            # So many large texts do not fit into one message; a page may be shorter than asked for.
            return await self.documents(name, filter_=filter_, limit=limit // 2, offset=offset, view=view)
        return Page(
            [_document(record.payload or {}) for record in records],
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
        """The nearest documents by falling score, ties by document id."""
        if vector is None:
            raise Unimplemented("this index adapter does not search by BM25 yet", reason="NO_LEXICAL")
        negated = await self._less_is_nearer(name)
        threshold = -min_score if negated and min_score is not None else min_score
        async with self._asking(name, timeout=timeout):
            found = await self._client.query_points(
                name,
                query=vector.tolist(),
                using=VECTOR,
                limit=limit,
                query_filter=qdrant_filter(filter_),
                search_params=models.SearchParams(hnsw_ef=ef, exact=exact) if ef or exact else None,
                score_threshold=threshold,
                with_payload=_selector(view),
            )
        candidates = [
            Candidate(
                _document(point.payload or {}),
                -point.score if negated else point.score,
                head_only=(point.payload or {}).get("text_is_long", False),
            )
            for point in found.points
        ]
        return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.document.id))

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def _less_is_nearer(self, name: str) -> bool:
        if name not in self._distances:
            await self.collection(name)
        return self._distances[name] in _LESS_IS_NEARER

    @asynccontextmanager
    async def _asking(self, collection: str = "", *, timeout: float | None = None) -> AsyncIterator[None]:
        """Around each call: the request id goes along, time is bounded, failures become faults."""
        bound = self._timeout if timeout is None else min(timeout, self._timeout)
        headers = {telemetry.REQUEST_ID_KEY: telemetry.request_id()} if telemetry.request_id() else {}
        try:
            with context_headers.headers(headers):
                async with asyncio.timeout(bound):
                    yield
        except TimeoutError as error:
            raise DeadlineExceeded(f"the index did not answer within {bound:.3g} s", reason="INDEX_TIMEOUT") from error
        except ResourceExhaustedResponse as error:
            raise ResourceExhausted(
                "the index is overloaded", reason="INDEX_OVERLOADED", retry_after=error.retry_after_s
            ) from error
        except grpc.aio.AioRpcError as error:
            raise _index_fault(error, collection) from error


def _index_fault(error: grpc.aio.AioRpcError, collection: str) -> Fault:
    fault = fault_from_rpc_error(error)
    match fault:
        case NotFound():
            return _no_collection(collection)
        case AlreadyExists():
            return AlreadyExists(
                f"collection {collection!r} is there already",
                reason="COLLECTION_EXISTS",
                metadata={"collection": collection},
            )
        case Unavailable():
            return Unavailable(
                "the index cannot be reached",
                reason="INDEX_UNAVAILABLE",
                metadata={"cause": fault.message},
                retry_after=1.0,
            )
        case DeadlineExceeded() | ResourceExhausted() | Unimplemented():
            return fault
        case _:
            # The index refused what we made of a request that we had accepted.
            return Internal(f"the index refused a call: {fault.message}", reason="INDEX_REFUSED")


def _no_collection(name: str) -> NotFound:
    return NotFound(f"there is no collection {name!r}", reason="NO_COLLECTION", metadata={"collection": name})


def _payload(document: Document) -> dict[str, Any]:
    head, rest = split_text(document.text)
    payload = {"document_id": document.id, "title": document.title, "text": head, METADATA: dict(document.metadata)}
    # Apart, so that a hundred candidates of a search need not carry a hundred long texts.
    return {**payload, "text_is_long": True, "text_rest": rest} if rest else payload


def _document(payload: Mapping[str, Any]) -> Document:
    return Document(
        id=payload["document_id"],
        title=payload.get("title", ""),
        text=payload.get("text", "") + payload.get("text_rest", ""),
        metadata=payload.get(METADATA, {}),
    )


def _selector(view: DocumentView) -> list[str]:
    chosen = ["document_id", "title"]
    if view.text:
        chosen += ["text", "text_is_long"]
    if view.metadata:
        chosen.append(METADATA)
    return chosen
