"""The search service of the contract, over the gateway's logic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from winnow.search.v1 import collections_pb2, documents_pb2, search_pb2, search_service_pb2_grpc
from winnow_gateway import conversion, moving, paging, search_conversion, validation
from winnow_gateway.authorizing import visible
from winnow_gateway.catalog import Catalog
from winnow_gateway.ingesting import Acknowledgement, IngestLimits, IngestRun, Offered
from winnow_gateway.ports import Embedder, Index
from winnow_gateway.read_ahead import BytesInHand
from winnow_gateway.reembedding import Reembedder
from winnow_gateway.searching import Searcher
from winnow_rpc.faults import Fault, InvalidArgument, NotFound

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# A large batch lets other calls run after holding the event loop for so long.
_BREATH_SECONDS = 0.008


class SearchServicer(search_service_pb2_grpc.SearchServiceServicer):
    """Reads requests, calls the logic, writes answers; what is wrong leaves as a fault."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        searcher: Searcher,
        embedder: Embedder,
        index: Index,
        reembedder: Reembedder,
        ingest_limits: IngestLimits,
        default_deadline_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._searcher = searcher
        self._embedder = embedder
        self._index = index
        self._reembedder = reembedder
        self._ingest_limits = ingest_limits
        self._in_hand = BytesInHand(ingest_limits.held_bytes)
        self._default_deadline = default_deadline_seconds
        self.on_acknowledged: Callable[[Sequence[Acknowledgement]], None] = lambda group: None
        """Called with every group of documents that an ingest acknowledges."""

    async def CreateCollection(
        self, request: collections_pb2.CreateCollectionRequest, context: Context
    ) -> collections_pb2.CreateCollectionResponse:
        """Makes a collection."""
        collection = await self._catalog.create(
            validation.checked_collection_name(request.name, field="name"),
            description=validation.checked_description(request.description),
            metadata_fields=conversion.read_metadata_fields(request.metadata_fields),
            hnsw=conversion.read_hnsw(request.hnsw),
            lexical=conversion.read_lexical(request),
        )
        return collections_pb2.CreateCollectionResponse(collection=conversion.write_collection(collection))

    async def GetCollection(
        self, request: collections_pb2.GetCollectionRequest, context: Context
    ) -> collections_pb2.GetCollectionResponse:
        """Describes one collection."""
        name = validation.checked_collection_name(request.name, field="name")
        collection = await self._catalog.get(name)
        return collections_pb2.GetCollectionResponse(collection=conversion.write_collection(collection))

    async def ListCollections(
        self, request: collections_pb2.ListCollectionsRequest, context: Context
    ) -> collections_pb2.ListCollectionsResponse:
        """Lists collections by name."""
        page = await self._catalog.page(
            after=paging.read_token("collections", request.page_token) or "",
            size=_page_size(request.page_size),
            visible=visible,
        )
        return collections_pb2.ListCollectionsResponse(
            collections=[conversion.write_collection(collection) for collection in page.collections],
            next_page_token=paging.write_token("collections", page.next_name),
        )

    async def DeleteCollection(
        self, request: collections_pb2.DeleteCollectionRequest, context: Context
    ) -> collections_pb2.DeleteCollectionResponse:
        """Deletes a collection."""
        name = validation.checked_collection_name(request.name, field="name")
        count = await self._catalog.delete(name)
        return collections_pb2.DeleteCollectionResponse(deleted_document_count=count)

    async def ReembedCollection(
        self, request: collections_pb2.ReembedCollectionRequest, context: Context
    ) -> AsyncIterator[collections_pb2.ReembedCollectionResponse]:
        """Embeds every document of a collection anew."""
        name = validation.checked_collection_name(request.name, field="name")
        if request.keep_former and request.discard:
            raise InvalidArgument(
                "keep_former and discard contradict each other", field="discard", reason="CONTRADICTION"
            )
        run = self._reembedder.run(name, keep_former=request.keep_former, discard=request.discard)
        async with aclosing(run) as states:
            async for progress in states:
                yield conversion.write_progress(progress)

    async def IngestDocuments(
        self, request_iterator: AsyncIterator[documents_pb2.IngestDocumentsRequest], context: Context
    ) -> AsyncIterator[documents_pb2.IngestDocumentsResponse]:
        """Writes a stream of documents."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("content") != "header":
            raise InvalidArgument(
                "the first message of an ingest must carry the header", field="header", reason="NO_HEADER"
            )
        spec = (await self._catalog.to_fill(validation.checked_collection_name(first.header.collection))).spec
        await self._catalog.require_served(spec)
        run = IngestRun(
            spec=spec,
            embedder=self._embedder,
            index=self._index,
            limits=self._ingest_limits,
            in_hand=self._in_hand,
            timeout=context.time_remaining,
        )
        acknowledged = run.acknowledgements(_read_batches(request_iterator))
        try:
            async for group in acknowledged:
                self.on_acknowledged(group)
                yield documents_pb2.IngestDocumentsResponse(
                    acknowledgements=[conversion.write_acknowledgement(each) for each in group]
                )
        finally:
            # It holds another number of documents now, or is not there any more.
            self._catalog.forget(spec.name)
            await acknowledged.aclose()

    async def GetDocument(
        self, request: documents_pb2.GetDocumentRequest, context: Context
    ) -> documents_pb2.GetDocumentResponse:
        """Returns one document."""
        collection = validation.checked_collection_name(request.collection)
        id_ = validation.checked_document_id(request.id)
        stored = await self._catalog.located(collection, lambda stored: self._index.document(stored, id_))
        if stored is None:
            raise NotFound(
                f"collection {collection!r} holds no document {id_!r}",
                reason="NO_DOCUMENT",
                metadata={"collection": collection, "id": id_},
            )
        response = documents_pb2.GetDocumentResponse(document=conversion.write_document(stored.document))
        response.update_time.FromDatetime(stored.updated)
        return response

    async def ListDocuments(
        self, request: documents_pb2.ListDocumentsRequest, context: Context
    ) -> documents_pb2.ListDocumentsResponse:
        """Lists documents."""
        collection = validation.checked_collection_name(request.collection)
        view = conversion.read_view(request.view)
        filter_ = conversion.read_filter(request.filter)
        offset = paging.read_token("documents", request.page_token, possible=paging.is_point)
        size = _page_size(request.page_size)
        page = await self._catalog.located(
            collection,
            lambda stored: self._index.documents(stored, filter_=filter_, limit=size, offset=offset, view=view),
        )
        return documents_pb2.ListDocumentsResponse(
            documents=[conversion.write_document(document, view) for document in page.documents],
            next_page_token=paging.write_token("documents", page.next_offset),
        )

    async def DeleteDocuments(
        self, request: documents_pb2.DeleteDocumentsRequest, context: Context
    ) -> documents_pb2.DeleteDocumentsResponse:
        """Deletes documents by id or by filter."""
        collection = validation.checked_collection_name(request.collection)
        filter_ = conversion.read_filter(request.filter)
        if bool(request.ids) == (not filter_.empty):
            raise InvalidArgument(
                "give ids or a filter that is not empty, and not both", field="ids", reason="IDS_OR_FILTER"
            )
        ids = validation.checked_ids(request.ids, field="ids")
        await self._catalog.spec(collection)
        if ids:
            count = await moving.delete_documents(self._index, collection, ids)
        else:
            count = await moving.delete_matching(self._index, collection, filter_)
        self._catalog.forget(collection)
        return documents_pb2.DeleteDocumentsResponse(deleted_document_count=count)

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        """Answers a search."""
        query = search_conversion.read_search(request, timeout=self._time_left(context))
        return search_conversion.write_search(await self._searcher.search(query), query.view)

    async def StreamSearch(
        self, request: search_pb2.StreamSearchRequest, context: Context
    ) -> AsyncIterator[search_pb2.StreamSearchResponse]:
        """Answers a search, the order of retrieval first and every better one as it forms."""
        query = search_conversion.read_search(request.search, timeout=self._time_left(context))
        async with aclosing(self._searcher.stream(query)) as states:
            async for state in states:
                result = search_conversion.write_search(state, query.view)
                yield search_pb2.StreamSearchResponse(result=result, final=state.final)

    def _time_left(self, context: Context) -> float:
        remaining = context.time_remaining()
        return self._default_deadline if remaining is None else max(0.0, remaining)


async def _read_batches(
    requests: AsyncIterator[documents_pb2.IngestDocumentsRequest],
) -> AsyncIterator[Sequence[Offered]]:
    async for request in requests:
        if request.WhichOneof("content") != "batch":
            raise InvalidArgument("every message after the first must carry a batch", field="batch", reason="NO_BATCH")
        count = len(request.batch.documents)
        if not 1 <= count <= validation.MAX_BATCH_DOCUMENTS:
            raise InvalidArgument(
                f"the batch has {count} documents: 1 to {validation.MAX_BATCH_DOCUMENTS}",
                field="batch.documents",
                reason="OUT_OF_RANGE",
            )
        yield await _read_offered(request.batch.documents)


async def _read_offered(messages: Sequence[documents_pb2.Document]) -> list[Offered]:
    seen: dict[str, int] = {}
    offered = []
    breath = time.perf_counter()
    for position, message in enumerate(messages):
        if time.perf_counter() - breath > _BREATH_SECONDS:
            await asyncio.sleep(0)
            breath = time.perf_counter()
        place = f"batch.documents[{position}]"
        refusal: Fault | None = None
        document = None
        try:
            document = conversion.read_document(message, field=place)
        except InvalidArgument as fault:
            refusal = fault
        if document and message.id in seen:
            document = None
            refusal = InvalidArgument(
                f"the id {message.id!r} appears twice in the batch, first as document {seen[message.id]}",
                field=f"{place}.id",
                reason="DUPLICATE_ID",
            )
        seen.setdefault(message.id, position)
        offered.append(Offered(message.id, document, refusal))
    return offered


def _page_size(requested: int) -> int:
    return validation.checked_count(
        requested, field="page_size", default=validation.DEFAULT_PAGE_SIZE, maximum=validation.MAX_PAGE_SIZE
    )
