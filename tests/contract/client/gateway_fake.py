"""A gateway in memory, served over real gRPC from a thread of its own: what the SDK and the command are tested against.

It finds by counting words, keeps the contract's rules that callers can see, and can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format

from tests.contract.client.filter_fake import holds
from winnow.search.v1 import collections_pb2, documents_pb2, search_pb2, search_service_pb2_grpc
from winnow_rpc.faults import AlreadyExists, InvalidArgument, NotFound, Unavailable
from winnow_rpc.requesting import Authorizer
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings
from winnow_rpc.status import status_of

SERVICE_NAME = "winnow.search.v1.SearchService"
T = TypeVar("T")


@dataclass
class Held:
    """A collection and its documents."""

    description: collections_pb2.Collection
    documents: dict[str, documents_pb2.Document] = field(default_factory=dict)


class FakeGateway(search_service_pb2_grpc.SearchServiceServicer):
    """The servicer. Tests read and set its public fields."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.calls: list[str] = []
        """Names of the RPCs that were called, in order, attempts counted."""
        self.requests: list[Any] = []
        self.fail: Counter[str] = Counter()
        """RPC name → how many of its next calls answer UNAVAILABLE."""
        self.break_after: list[int] = []
        """The next ingest streams break off after that many acknowledgements."""
        self.delay = 0.0
        """Seconds that a search takes."""
        self.batches: list[list[str]] = []
        """Ids of each batch that came."""
        self.deadlines: list[float | None] = []
        self.reembed_delay = 0.0
        """Seconds before each progress of a re-embedding."""
        self.reembeddings_broken = 0
        """How many of the next re-embeddings break off after their first progress."""
        self.ingest_delay = 0.0
        """Seconds between two batches of acknowledgements."""
        self.end_early = False
        """End ingest streams well, but before everything is acknowledged."""

    async def _begin(self, name: str, request: Any, context: Any) -> None:
        self.calls.append(name)
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        if self.fail[name]:
            self.fail[name] -= 1
            raise Unavailable("the fake was told to fail", reason="TOLD_TO")

    def _find(self, name: str) -> Held:
        if name not in self.held:
            raise NotFound(f"there is no collection {name!r}", reason="COLLECTION_NOT_FOUND")
        return self.held[name]

    def _described(self, held: Held) -> collections_pb2.Collection:
        described = collections_pb2.Collection()
        described.CopyFrom(held.description)
        described.document_count = len(held.documents)
        return described

    async def CreateCollection(self, request: Any, context: Any) -> Any:
        await self._begin("CreateCollection", request, context)
        if request.name in self.held:
            raise AlreadyExists(f"the collection {request.name!r} exists already")
        if not request.name:
            raise InvalidArgument("'' is no collection name", field="name", reason="BAD_COLLECTION_NAME")
        description = collections_pb2.Collection(
            name=request.name,
            description=request.description,
            metadata_fields=request.metadata_fields,
            hnsw=request.hnsw if request.HasField("hnsw") else collections_pb2.HnswConfig(m=16, ef_construct=128),
            index_state=collections_pb2.INDEX_STATE_READY,
            embedder_id="words",
            embedder_fingerprint="ab" * 32,
            dimension=3,
            similarity=collections_pb2.SIMILARITY_COSINE,
        )
        if not request.without_lexical:
            description.lexical.language = request.lexical.language or "english"
            description.lexical.average_words = request.lexical.average_words or 128
        description.create_time.FromDatetime(datetime(2024, 5, 1, 12, tzinfo=UTC))
        self.held[request.name] = Held(description)
        return collections_pb2.CreateCollectionResponse(collection=self._described(self.held[request.name]))

    async def GetCollection(self, request: Any, context: Any) -> Any:
        await self._begin("GetCollection", request, context)
        return collections_pb2.GetCollectionResponse(collection=self._described(self._find(request.name)))

    async def ListCollections(self, request: Any, context: Any) -> Any:
        await self._begin("ListCollections", request, context)
        names, token = _page(sorted(self.held), request)
        described = [self._described(self.held[name]) for name in names]
        return collections_pb2.ListCollectionsResponse(collections=described, next_page_token=token)

    async def DeleteCollection(self, request: Any, context: Any) -> Any:
        await self._begin("DeleteCollection", request, context)
        count = len(self._find(request.name).documents)
        del self.held[request.name]
        return collections_pb2.DeleteCollectionResponse(deleted_document_count=count)

    async def ReembedCollection(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin("ReembedCollection", request, context)
        held = self._find(request.name)
        total, former, model = len(held.documents), held.description.embedder_fingerprint, "cd" * 32
        for done, complete in [*((done, False) for done in range(total + 1)), (total, True)]:
            phase = collections_pb2.REEMBED_PHASE_SWITCHED if complete else collections_pb2.REEMBED_PHASE_EMBEDDING
            await asyncio.sleep(self.reembed_delay)
            yield collections_pb2.ReembedCollectionResponse(
                embedded_document_count=done,
                document_count=total,
                embedder_fingerprint=model,
                former_embedder_fingerprint=former,
                phase=phase,
                complete=complete,
            )
            if self.reembeddings_broken:
                self.reembeddings_broken -= 1
                raise Unavailable("the fake was told to break off", reason="TOLD_TO")
        held.description.embedder_fingerprint = model

    async def IngestDocuments(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        header = await anext(aiter(request_iterator))
        await self._begin("IngestDocuments", header, context)
        held = self._find(header.header.collection)
        left = self.break_after.pop(0) if self.break_after else None
        sequence = 0
        async for request in request_iterator:
            self.batches.append([document.id for document in request.batch.documents])
            if self.ingest_delay:
                await asyncio.sleep(self.ingest_delay)
            if self.end_early:
                return
            acknowledgements = []
            seen: set[str] = set()
            for document in request.batch.documents:
                if left is not None and sequence >= left:
                    break
                acknowledgements.append(_write(held, document, sequence, twice=document.id in seen))
                seen.add(document.id)
                sequence += 1
            yield documents_pb2.IngestDocumentsResponse(acknowledgements=acknowledgements)
            if left is not None and sequence >= left:
                raise Unavailable("the index does not answer", reason="INDEX_UNAVAILABLE")

    async def GetDocument(self, request: Any, context: Any) -> Any:
        await self._begin("GetDocument", request, context)
        document = self._find(request.collection).documents.get(request.id)
        if document is None:
            raise NotFound(f"there is no document {request.id!r}", reason="DOCUMENT_NOT_FOUND")
        response = documents_pb2.GetDocumentResponse(document=document)
        response.update_time.FromDatetime(datetime(2024, 5, 1, 12, 30, tzinfo=UTC))
        return response

    async def ListDocuments(self, request: Any, context: Any) -> Any:
        await self._begin("ListDocuments", request, context)
        held = self._find(request.collection)
        ids = [i for i in sorted(held.documents) if not request.HasField("filter") or _holds(request.filter, held, i)]
        ids, token = _page(ids, request)
        documents = [_view(held.documents[id_], request.view) for id_ in ids]
        return documents_pb2.ListDocumentsResponse(documents=documents, next_page_token=token)

    async def DeleteDocuments(self, request: Any, context: Any) -> Any:
        await self._begin("DeleteDocuments", request, context)
        held = self._find(request.collection)
        if bool(request.ids) == request.HasField("filter"):
            raise InvalidArgument("give ids or a filter", field="ids", reason="NOTHING_TO_DELETE")
        doomed = [i for i in request.ids or held.documents if i in held.documents]
        if request.HasField("filter"):
            doomed = [i for i in doomed if _holds(request.filter, held, i)]
        for id_ in set(doomed):
            del held.documents[id_]
        return documents_pb2.DeleteDocumentsResponse(deleted_document_count=len(set(doomed)))

    async def Search(self, request: Any, context: Any) -> Any:
        await self._begin("Search", request, context)
        return await self._answer(request)

    async def StreamSearch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._begin("StreamSearch", request.search, context)
        response = await self._answer(request.search)
        yield search_pb2.StreamSearchResponse(result=_unranked(response))
        if self.fail["StreamSearch half-way"]:
            raise Unavailable("the fake was told to fail", reason="TOLD_TO")
        yield search_pb2.StreamSearchResponse(result=response, final=True)

    async def _answer(self, request: Any) -> Any:
        held = self._find(request.collection)
        await asyncio.sleep(self.delay)
        words = set(request.query.lower().split())
        scored = sorted(
            ((len(words & set(f"{d.title} {d.text}".lower().split())), d.id) for d in held.documents.values()),
            key=lambda pair: (-pair[0], pair[1]),
        )
        if request.HasField("filter"):
            scored = [pair for pair in scored if _holds(request.filter, held, pair[1])]
        mode = request.mode or search_pb2.SEARCH_MODE_AUTO
        if mode == search_pb2.SEARCH_MODE_AUTO:
            mode = search_pb2.SEARCH_MODE_TWO_STAGE
        two_stage = mode == search_pb2.SEARCH_MODE_TWO_STAGE
        kind = request.retrieval.kind or search_pb2.RETRIEVAL_KIND_HYBRID
        if mode == search_pb2.SEARCH_MODE_LEXICAL:
            kind = search_pb2.RETRIEVAL_KIND_LEXICAL
        hits = [
            search_pb2.Hit(
                document=_view(held.documents[id_], request.view),
                rank=rank,
                score=score,
                retrieval=search_pb2.StageResult(score=score / 10, rank=rank),
                rerank=search_pb2.StageResult(score=score, rank=rank) if two_stage else None,
                dense=search_pb2.StageResult(score=score / 5, rank=rank + 3),
                lexical=search_pb2.StageResult(score=score, rank=rank + 5) if score else None,
                probability=score / 4 if two_stage else None,
            )
            for rank, (score, id_) in enumerate(scored[: request.limit or 10], start=1)
        ]
        degradation = search_pb2.Degradation(
            kind=search_pb2.DEGRADATION_KIND_QUERY_TRUNCATED, reason="TOO_LONG", message="the query was cut"
        )
        return search_pb2.SearchResponse(
            hits=hits,
            mode=mode,
            retrieval_kind=kind,
            mode_reason="as asked",
            candidate_count=len(scored),
            reranked_count=len(hits) if two_stage else 0,
            timing=search_pb2.SearchTiming(
                total_micros=4200, embed_micros=1100, retrieve_micros=900, rerank_micros=2000, gateway_micros=200
            ),
            degradations=[degradation] if len(request.query) > 1000 else [],
            embedder_fingerprint="ab" * 32,
        )


def _unranked(response: Any) -> Any:
    """The same answer before anything was reranked."""
    early = search_pb2.SearchResponse()
    early.CopyFrom(response)
    early.reranked_count = 0
    for hit in early.hits:
        hit.ClearField("rerank")
        hit.ClearField("probability")
    return early


def _write(held: Held, document: Any, sequence: int, *, twice: bool) -> Any:
    acknowledgement = documents_pb2.IngestAcknowledgement(sequence=sequence, id=document.id)
    fault = None
    if twice:
        fault = InvalidArgument("the id comes twice in one batch", field="id", reason="DUPLICATE_ID")
    elif not document.text.strip() and not document.title.strip():
        fault = InvalidArgument("title and text are both blank", field="text", reason="EMPTY_TEXT")
    if fault is not None:
        acknowledgement.outcome = documents_pb2.INGEST_OUTCOME_REFUSED
        acknowledgement.refusal.CopyFrom(status_of(fault))
    elif held.documents.get(document.id) == document:
        acknowledgement.outcome = documents_pb2.INGEST_OUTCOME_UNCHANGED
    else:
        acknowledgement.outcome = documents_pb2.INGEST_OUTCOME_INDEXED
        acknowledgement.dropped_token_count = max(0, len(document.text.split()) - 256)
        held.documents[document.id] = document
    return acknowledgement


def _page(items: list[str], request: Any) -> tuple[list[str], str]:
    start, size = int(request.page_token or 0), request.page_size or 100
    return items[start : start + size], str(start + size) if start + size < len(items) else ""


def _view(document: documents_pb2.Document, view: documents_pb2.DocumentView) -> documents_pb2.Document:
    shown = documents_pb2.Document()
    shown.CopyFrom(document)
    if view.omit_text:
        shown.ClearField("text")
    if view.omit_metadata:
        shown.ClearField("metadata")
    return shown


def _holds(where: documents_pb2.Filter, held: Held, id_: str) -> bool:
    return holds(where, id_, json_format.MessageToDict(held.documents[id_].metadata))


async def until(condition: Callable[[], bool]) -> None:
    """Waits until something holds that no event tells of."""
    async with asyncio.timeout(20):
        # What is waited for happens in another thread.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Served:
    """A servicer under the real server of `winnow_rpc`, in a thread with its own loop. Can be stopped and started."""

    def __init__(
        self,
        register: Callable[[grpc.aio.Server], None],
        *,
        names: tuple[str, ...] = (SERVICE_NAME,),
        authorizer: Authorizer | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._settings = {"drain_seconds": 0, "probe_seconds": 0.1, **(settings or {})}
        self._register = register
        self._names = names
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: RunningServer | None = None
        self.healthy = True
        self.address = ""

    def start(self) -> None:
        """Starts, on the port of the first start."""
        port = int(self.address.rpartition(":")[2] or 0)
        service = Service(
            name="fake",
            register=self._register,
            service_names=self._names,
            probe=self._probe,
            close=self._close,
            authorizer=self._authorizer,
        )

        async def start() -> RunningServer:
            server = RunningServer(service, ServingSettings.model_validate({"port": port, **self._settings}))
            await server.start()
            return server

        self._server = self.run(start())
        self.address = self._server.address

    def stop(self) -> None:
        """Stops at once; calls in progress break off."""
        if self._server is not None:
            self.run(self._server.stop())
            self._server = None

    def shut(self) -> None:
        """Stops for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=20)

    async def _probe(self) -> None:
        if not self.healthy:
            raise Unavailable("unhealthy, as told")

    async def _close(self) -> None:
        return
