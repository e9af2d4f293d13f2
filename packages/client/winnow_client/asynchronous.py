"""The client for asyncio. `winnow_client.synchronous` derives the blocking one from it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from winnow.search.v1 import collections_pb2, documents_pb2, search_pb2, search_service_pb2, search_service_pb2_grpc
from winnow_client import conversions, forking
from winnow_client.call_faults import gateway_fault
from winnow_client.call_tracing import call_span, request_span
from winnow_client.collections import Collection, HnswConfig, LexicalConfig, MetadataField, ReembedProgress
from winnow_client.config import ClientConfig
from winnow_client.documents import Acknowledgement, Document, StoredDocument
from winnow_client.filters import Filter
from winnow_client.ingesting import IngestStream
from winnow_client.search_requests import given, search_request
from winnow_client.searching import (
    DepthPolicy,
    Effort,
    RankFusion,
    RankingPolicy,
    RankMixing,
    RetrievalKind,
    SearchMode,
    SearchOptions,
    SearchResult,
    SearchState,
)
from winnow_client.time_limits import time_limit
from winnow_rpc import tracing
from winnow_rpc.calling import open_channel
from winnow_rpc.faults import Cancelled, FailedPrecondition, Fault, InvalidArgument

if TYPE_CHECKING:
    from winnow.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub

SERVICE = search_service_pb2.DESCRIPTOR.services_by_name["SearchService"]
"""The contract that this client covers."""

NOT_REPEATABLE = frozenset({"CreateCollection", "DeleteCollection", "IngestDocuments"})
"""Methods that a second attempt would answer differently, or that `ingest` must restart itself."""

MAX_IDS_PER_DELETE = 10_000
"""Ids that the contract allows in one DeleteDocuments."""

RequestT = TypeVar("RequestT", bound=Message)
AnswerT = TypeVar("AnswerT")


class AsyncClient:
    """Speaks to a gateway from asyncio.

    It connects on first use and reconnects by itself. Use it as `async with AsyncClient() as client`, or call `close`.
    Errors are Faults (see `winnow_rpc.faults`): `NotFound`, `InvalidArgument`, `Unavailable` and so on. `timeout`, in
    seconds, bounds one call; left out, the configuration's does; `math.inf` takes the limit away.
    """

    def __init__(self, target: str | None = None, *, config: ClientConfig | None = None) -> None:
        """A client of the gateway at `target` ("host:port"), which goes before `config.target`."""
        config = config or ClientConfig()
        self.config = dataclasses.replace(config, target=target) if target else config
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stub: SearchServiceAsyncStub | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in progress end with Cancelled. May be called twice."""
        self._closed = True
        if self._channel is not None and not forking.inherited():
            channel, self._channel, self._stub = self._channel, None, None
            await channel.close()
            forking.closed(channel)

    async def create_collection(
        self,
        name: str,
        *,
        description: str = "",
        metadata_fields: Iterable[MetadataField] = (),
        hnsw: HnswConfig | None = None,
        lexical: LexicalConfig | None = None,
        without_lexical: bool = False,
        timeout: float | None = None,
    ) -> Collection:
        """Makes a collection, bound to the model that the embedder serves now.

        `metadata_fields` are indexed for filtering; filters on other fields work too, by scanning. `lexical`: how
        documents are indexed for BM25, by default in English; `without_lexical`: not at all, so that vectors alone find
        them. Raises AlreadyExists.
        """
        with self._building():
            request = collections_pb2.CreateCollectionRequest(
                name=name,
                description=description,
                metadata_fields=[conversions.metadata_field_to_proto(field) for field in metadata_fields],
                hnsw=None if hnsw is None else conversions.hnsw_to_proto(hnsw),
                lexical=None if lexical is None else conversions.lexical_to_proto(lexical),
                without_lexical=without_lexical,
            )
        response = await self._answer(lambda stub: stub.CreateCollection, request, timeout=timeout)
        return conversions.collection_from_proto(response.collection)

    async def get_collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """Describes one collection. Raises NotFound."""
        with self._building():
            request = collections_pb2.GetCollectionRequest(name=name)
        response = await self._answer(lambda stub: stub.GetCollection, request, timeout=timeout)
        return conversions.collection_from_proto(response.collection)

    async def list_collections(
        self, *, page_size: int | None = None, timeout: float | None = None
    ) -> AsyncGenerator[Collection, None]:
        """Yields the collections by name, fetching pages of `page_size` as it goes. `timeout` is for each page."""
        token = ""
        while True:
            with self._building():
                request = collections_pb2.ListCollectionsRequest(
                    page_size=given(page_size, "page_size"), page_token=token
                )
            response = await self._answer(lambda stub: stub.ListCollections, request, timeout=timeout)
            for collection in response.collections:
                yield conversions.collection_from_proto(collection)
            if not (token := response.next_page_token):
                return

    async def delete_collection(self, name: str, *, timeout: float | None = None) -> int:
        """Deletes a collection and all its documents, and returns how many there were. Raises NotFound."""
        with self._building():
            request = collections_pb2.DeleteCollectionRequest(name=name)
        response = await self._answer(lambda stub: stub.DeleteCollection, request, timeout=timeout)
        return response.deleted_document_count

    async def reembed_collection(
        self, name: str, *, keep_former: bool = False, discard: bool = False, timeout: float | None = None
    ) -> AsyncGenerator[ReembedProgress, None]:
        """Embeds every document anew with the model that the embedder serves now, while searches and writes go on, then
        binds the collection to it, and yields how far it is; the last is complete. Closing the generator stops it.

        Whatever it ends by, the next call goes on from there. `keep_former`: keep the former vectors, to go back to.
        `discard`: instead, remove such, and what an unfinished call made. Takes its time: by default it has no limit.
        """
        with self._building():
            request = collections_pb2.ReembedCollectionRequest(name=name, keep_former=keep_former, discard=discard)
        async with aclosing(self._states(lambda stub: stub.ReembedCollection, request, timeout=timeout)) as states:
            async for state in states:
                yield conversions.progress_from_proto(state)

    async def ingest(
        self,
        collection: str,
        documents: Iterable[Document] | AsyncIterable[Document],
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[Acknowledgement, None]:
        """Writes documents, and yields one acknowledgement for each, in order, as they come.

        Documents are read lazily, no more than a bounded number ahead; an ordinary iterable is read in a thread. An
        acknowledged document is on disk. A refused one refuses only itself. An id that comes again replaces the
        document.

        Nothing is written unless acknowledgements are read. On a lost connection it raises Unavailable, which says how
        many were acknowledged; sending everything again is safe and cheap, because what is unchanged is skipped.
        """
        stub = self._connected()
        left = time_limit(timeout)
        with self._building():
            documents_pb2.IngestHeader(collection=collection)
        span = call_span("IngestDocuments")
        metadata = tuple(span.headers().items())
        stream = IngestStream(collection, self.config.ingest).run(
            lambda requests: stub.IngestDocuments(requests, timeout=left, metadata=metadata),
            documents,
            fault_of=lambda error: self._fault(error, left),
        )
        try:
            with self._faults(left):
                async for acknowledgement in stream:
                    yield acknowledgement
        finally:
            await stream.aclose()
            span.end()

    async def get_document(self, collection: str, document_id: str, *, timeout: float | None = None) -> StoredDocument:
        """Returns one document. Raises NotFound."""
        with self._building():
            request = documents_pb2.GetDocumentRequest(collection=collection, id=document_id)
        response = await self._answer(lambda stub: stub.GetDocument, request, timeout=timeout)
        return conversions.stored_document_from_proto(response)

    async def list_documents(
        self,
        collection: str,
        *,
        where: Filter | None = None,
        omit_text: bool = False,
        omit_metadata: bool = False,
        page_size: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[Document, None]:
        """Yields the documents that satisfy `where`, in a stable order, fetching pages as it goes.

        `timeout` is for each page.
        """
        token = ""
        while True:
            with self._building():
                request = documents_pb2.ListDocumentsRequest(
                    collection=collection,
                    filter=None if where is None else conversions.filter_to_proto(where),
                    page_size=given(page_size, "page_size"),
                    page_token=token,
                    view=documents_pb2.DocumentView(omit_text=omit_text, omit_metadata=omit_metadata),
                )
            response = await self._answer(lambda stub: stub.ListDocuments, request, timeout=timeout)
            for document in response.documents:
                yield conversions.document_from_proto(document)
            if not (token := response.next_page_token):
                return

    async def delete_documents(
        self,
        collection: str,
        *,
        ids: Sequence[str] | None = None,
        where: Filter | None = None,
        timeout: float | None = None,
    ) -> int:
        """Deletes documents by ids or by a filter, not both, and returns how many were there. Unknown ids are no error.

        More than 10,000 ids take several calls; `timeout` is for each.
        """
        if (ids is None) == (where is None):
            raise InvalidArgument("delete by ids or by a filter: exactly one of them", field="ids")
        if isinstance(ids, str):
            raise TypeError("ids is a sequence of ids, not one string")
        requests = []
        with self._building():
            if where is not None:
                condition = conversions.filter_to_proto(where)
                requests.append(documents_pb2.DeleteDocumentsRequest(collection=collection, filter=condition))
            else:
                for start in range(0, len(ids or ()) or 1, MAX_IDS_PER_DELETE):
                    some = (ids or ())[start : start + MAX_IDS_PER_DELETE]
                    requests.append(documents_pb2.DeleteDocumentsRequest(collection=collection, ids=some))
        deleted = 0
        for request in requests:
            response = await self._answer(lambda stub: stub.DeleteDocuments, request, timeout=timeout)
            deleted += response.deleted_document_count
        return deleted

    async def search(
        self,
        collection: str,
        query: str,
        *,
        limit: int | None = None,
        mode: SearchMode | None = None,
        depth: int | None = None,
        depth_policy: DepthPolicy | None = None,
        budget: float | None = None,
        effort: Effort | None = None,
        require_rerank: bool = False,
        where: Filter | None = None,
        omit_text: bool = False,
        omit_metadata: bool = False,
        retrieval: RetrievalKind | None = None,
        fusion: RankFusion | None = None,
        ef: int | None = None,
        exact: bool = False,
        ranking_policy: RankingPolicy | None = None,
        mixing: RankMixing | None = None,
        min_retrieval_score: float | None = None,
        min_rerank_score: float | None = None,
        min_probability: float | None = None,
        timeout: float | None = None,
    ) -> SearchResult:
        """Finds the documents that answer a query.

        `limit`: hits to return, 1 to 1,000, by default 10. `mode`: which stages answer, by default AUTO. `depth`:
        candidates to rerank, 1 to 1,000, by default 100; `depth_policy`: as the time allows, or no fewer (FLOOR).
        `budget`: seconds within which the answer is wanted, 0.001 to 3,600: reranking stops in time for it, and
        `degradations` say so; by default `timeout` is the only bound. `effort`: ECONOMY stops when the first hits have
        settled. `require_rerank`: raise Unavailable or DeadlineExceeded rather than return an order without the
        reranker. `where`: only documents that satisfy it. `retrieval`: what the first stage looks at, by default HYBRID
        where the collection has BM25, else DENSE; `fusion`: how HYBRID fuses. `ef`: candidates that HNSW considers, 1
        to 4,096. `exact`: compare with every vector instead. `ranking_policy` and `mixing`: how reranked candidates are
        ordered, by default as the reranker's model recommends. `min_retrieval_score` leaves out, before reranking, what
        vectors found and is less similar; `min_rerank_score` and `min_probability` reranked hits after it.
        """
        with self._building():
            request = search_request(
                collection,
                query,
                limit=limit,
                mode=mode,
                depth=depth,
                depth_policy=depth_policy,
                budget=budget,
                effort=effort,
                require_rerank=require_rerank,
                where=where,
                omit_text=omit_text,
                omit_metadata=omit_metadata,
                retrieval=retrieval,
                fusion=fusion,
                ef=ef,
                exact=exact,
                ranking_policy=ranking_policy,
                mixing=mixing,
                min_retrieval_score=min_retrieval_score,
                min_rerank_score=min_rerank_score,
                min_probability=min_probability,
            )
        response = await self._answer(lambda stub: stub.Search, request, timeout=timeout)
        return conversions.search_result_from_proto(response)

    async def stream_search(
        self, collection: str, query: str, *, timeout: float | None = None, **options: Unpack[SearchOptions]
    ) -> AsyncGenerator[SearchState, None]:
        """Searches, and yields the order of retrieval at once, then every better one as the reranker scores.

        The last state is marked final and is what `search` would have returned. `options` are the arguments of
        `search`. Closing the generator stops the search.
        """
        with self._building():
            request = search_pb2.StreamSearchRequest(search=search_request(collection, query, **options))
        left = self.config.timeout_seconds if timeout is None else timeout
        async with aclosing(self._states(lambda stub: stub.StreamSearch, request, timeout=left)) as states:
            async for state in states:
                yield SearchState(result=conversions.search_result_from_proto(state.result), final=state.final)

    def _connected(self) -> SearchServiceAsyncStub:
        if self._closed:
            raise FailedPrecondition("the client is closed", reason="CLIENT_CLOSED")
        forking.check()
        # Of a loop that has ended, as after `asyncio.run`, nothing can be closed any more.
        if self._stub is None or (self._loop is not None and self._loop.is_closed()):
            tracing.adopt()
            # Here and not in the constructor: a channel belongs to the event loop that runs when it is opened.
            repeatable = [method.name for method in SERVICE.methods if method.name not in NOT_REPEATABLE]
            self._channel = open_channel(self.config.channel_settings({SERVICE.full_name: repeatable}))
            forking.opened(self._channel)
            self._loop, self._stub = (
                asyncio.get_running_loop(),
                search_service_pb2_grpc.SearchServiceStub(self._channel),
            )
        return self._stub

    async def _answer(
        self,
        method: Callable[[SearchServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[RequestT, AnswerT]],
        request: RequestT,
        *,
        timeout: float | None,
    ) -> AnswerT:
        left = time_limit(self.config.timeout_seconds if timeout is None else timeout)
        stub = self._connected()
        with request_span(request), self._faults(left):
            return await method(stub)(request, timeout=left)

    async def _states(
        self,
        method: Callable[[SearchServiceAsyncStub], grpc.aio.UnaryStreamMultiCallable[RequestT, AnswerT]],
        request: RequestT,
        *,
        timeout: float | None,
    ) -> AsyncGenerator[AnswerT, None]:
        left = time_limit(timeout)
        span = call_span(type(request).__name__.removesuffix("Request"))
        call = method(self._connected())(request, timeout=left, metadata=tuple(span.headers().items()))
        try:
            with self._faults(left):
                async for state in call:
                    yield state
        finally:
            call.cancel()
            span.end()

    @contextmanager
    def _faults(self, timeout: float | None) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._fault(error, timeout) from error
        except asyncio.CancelledError:
            # gRPC cancels the calls of a channel that is closed; then nobody has cancelled this task.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise Cancelled("the client was closed during the call", reason="CLIENT_CLOSED") from None
            raise

    def _fault(self, error: grpc.aio.AioRpcError, timeout: float | None) -> Fault:
        return gateway_fault(error, target=self.config.target, timeout=timeout)

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Turns what protobuf says of a value that does not fit into a fault."""
        try:
            yield
        except (ValueError, OverflowError) as error:
            raise InvalidArgument(f"the request cannot be sent: {error}", reason="NOT_REPRESENTABLE") from error
