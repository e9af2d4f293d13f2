"""One ingest stream: documents out, acknowledgements in, both under way at once and both bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

import grpc

from winnow.search.v1 import documents_pb2
from winnow_client.call_ending import CallEnding
from winnow_client.config import IngestConfig
from winnow_client.documents import Acknowledgement, Document
from winnow_client.intake import Intake
from winnow_client.ledger import Ledger
from winnow_rpc.faults import Fault, Internal, Unavailable

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[documents_pb2.IngestDocumentsRequest, documents_pb2.IngestDocumentsResponse]


class IngestStream:
    """One stream to a gateway. To be used once, from the running loop."""

    def __init__(self, collection: str, config: IngestConfig) -> None:
        self._collection = collection
        self._config = config
        self._ledger = Ledger()
        self._intake = Intake(config)
        self._closed = False
        # Set whenever there may be something to hand out, and whenever there may be room to send more.
        self._progress = asyncio.Event()
        self._room = asyncio.Event()

    async def run(
        self,
        open_call: Callable[[AsyncIterator[documents_pb2.IngestDocumentsRequest]], Call],
        documents: Iterable[Document] | AsyncIterable[Document],
        *,
        fault_of: Callable[[grpc.aio.AioRpcError], Fault],
    ) -> AsyncGenerator[Acknowledgement, None]:
        """Sends documents over a call and yields their acknowledgements, in order, as they come.

        What the iterable raises is raised here, after the acknowledgements of the documents before it. Faults of the
        stream carry `acknowledged_count` in their metadata.
        """
        self._intake.start(documents)
        call = open_call(self._requests())
        ending = CallEnding(call)
        reader = asyncio.create_task(self._read(call), name="winnow acknowledgements")
        reader.add_done_callback(lambda _: self._progress.set())
        try:
            ended = False
            while not ended:
                self._progress.clear()
                ended = reader.done()
                for acknowledgement in self._ledger.ready():
                    yield acknowledgement
                self._room.set()
                if not ended:
                    await self._progress.wait()
            try:
                await reader
            except grpc.aio.AioRpcError as error:
                true = await ending.true_error(error)
                raise self._with_count(true if isinstance(true, Fault) else fault_of(true)) from error
            self._check_complete()
        finally:
            # Ends `_requests`, whatever it waits for: left alone, gRPC would keep it waiting for ever.
            self._closed = True
            self._room.set()
            await self._intake.close()
            call.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _requests(self) -> AsyncIterator[documents_pb2.IngestDocumentsRequest]:
        yield documents_pb2.IngestDocumentsRequest(header=documents_pb2.IngestHeader(collection=self._collection))
        while entries := await self._intake.take():
            batch = documents_pb2.DocumentBatch()
            for entry in entries:
                if isinstance(entry.content, Fault):
                    self._ledger.refused(entry.id, entry.content)
                    self._progress.set()
                else:
                    self._ledger.sent(entry.id)
                    batch.documents.append(entry.content)
            if batch.documents:
                yield documents_pb2.IngestDocumentsRequest(batch=batch)
            while self._ledger.outstanding_count >= self._config.max_outstanding_count and not self._closed:
                self._room.clear()
                await self._room.wait()

    async def _read(self, call: Call) -> None:
        async for response in call:
            for acknowledgement in response.acknowledgements:
                self._ledger.answered(acknowledgement)
            self._progress.set()

    def _check_complete(self) -> None:
        if self._intake.failure is not None:
            raise self._intake.failure
        if self._ledger.unanswered_count or not self._intake.exhausted:
            message = "the gateway ended the stream before it had acknowledged everything"
            raise self._with_count(Internal(message, reason="SHORT_STREAM"))

    def _with_count(self, fault: Fault) -> Fault:
        acknowledged = self._ledger.acknowledged_count
        fault.metadata["acknowledged_count"] = str(acknowledged)
        if isinstance(fault, Unavailable):
            return Unavailable(
                f"the ingest stream broke off after {acknowledged} documents were acknowledged: {fault.message}",
                reason=fault.reason,
                metadata=fault.metadata,
                retry_after=fault.retry_after,
            )
        return fault
