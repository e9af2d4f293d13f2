"""Calls of our model services over gRPC, and what they say of their work. The only file here that knows messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.message import Message

from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_lab.bench_figures import Vectors
from winnow_lab.bench_inference.services import CHANNEL_OPTIONS
from winnow_rpc.faults import Internal

_SECONDS = 900.0
# More than the service reads ahead, so that it never waits for us.
_GROUPS_UNDER_WAY = 8


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer, taken apart when somebody wants it."""

    request: Message
    """What was asked."""
    response: Any
    """What came back."""

    @property
    def tokens(self) -> int:
        """Tokens that the model read."""
        return int(self.response.report.token_count)

    @property
    def micros(self) -> tuple[int, int, int]:
        """Microseconds spent queued, tokenizing and inferring."""
        timing = self.response.report.timing
        return timing.queue_micros, timing.tokenize_micros, timing.inference_micros

    @property
    def vectors(self) -> Vectors:
        """An embedder's vectors, one row a text."""
        batch = self.response.vectors
        return np.frombuffer(batch.data, dtype="<f4").reshape(batch.count, batch.dimension)

    @property
    def scores(self) -> list[float]:
        """A reranker's scores, in the order of the documents."""
        scores = {score.index: score.score for score in self.response.scores}
        return [scores[index] for index in range(len(scores))]

    def serialization_micros(self, *, times: int = 20) -> float:
        """Microseconds to serialize and parse this request and this response once each, as both sides together do."""
        kinds = [(message, type(message)) for message in (self.request, self.response)]
        began = time.perf_counter()
        for _ in range(times):
            for message, kind in kinds:
                kind.FromString(message.SerializeToString())
        return (time.perf_counter() - began) / times * 1e6


class _Calls:
    """A channel to a service on this machine."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.close()


class EmbedderCalls(_Calls):
    """Calls of the embedder."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(self._channel)

    async def precision(self) -> str:
        """Engine and number format, with its streams."""
        return _precision((await self._stub.GetModel(embedder_pb2.GetModelRequest(), timeout=_SECONDS)).model.engine)

    async def embed_stream(self, groups: Sequence[Sequence[str]]) -> tuple[float, list[Answered]]:
        """Embeds groups of texts over one bulk stream: seconds from its start to its end, and the answers."""
        batches = [embedder_pb2.TextBatch(texts=group) for group in groups]

        async def requests() -> AsyncIterator[embedder_pb2.StreamEmbedTextsRequest]:
            yield embedder_pb2.StreamEmbedTextsRequest(options=passage_options())
            for batch in batches:
                yield embedder_pb2.StreamEmbedTextsRequest(batch=batch)

        began = time.perf_counter()
        responses = [response async for response in self._stub.StreamEmbedTexts(requests(), timeout=_SECONDS)]
        seconds = time.perf_counter() - began
        return seconds, [_embedded(batch, response) for batch, response in zip(batches, responses, strict=True)]

    async def embed_while(self, groups: AsyncIterator[Sequence[str]]) -> AsyncIterator[tuple[Sequence[str], Answered]]:
        """Each group of one bulk stream and its answer, as they come, for as long as there are groups."""
        sent: deque[tuple[Sequence[str], embedder_pb2.TextBatch]] = deque()
        # gRPC alone buffers megabytes of requests on their way, and the stream would outlive its groups by minutes.
        room = asyncio.Semaphore(_GROUPS_UNDER_WAY)

        async def requests() -> AsyncIterator[embedder_pb2.StreamEmbedTextsRequest]:
            yield embedder_pb2.StreamEmbedTextsRequest(options=passage_options())
            async for group in groups:
                await room.acquire()
                sent.append((group, embedder_pb2.TextBatch(texts=group)))
                yield embedder_pb2.StreamEmbedTextsRequest(batch=sent[-1][1])

        async for response in self._stub.StreamEmbedTexts(requests()):
            group, batch = sent.popleft()
            room.release()
            yield group, _embedded(batch, response)

    async def embed_query(self, *texts: str, timeout: float = _SECONDS) -> Answered:
        """Embeds one query, or several texts in one call, as interactive work. Raises grpc.aio.AioRpcError."""
        options = embedder_pb2.EmbedOptions(
            input_type=embedder_pb2.INPUT_TYPE_QUERY, priority=embedder_pb2.PRIORITY_INTERACTIVE
        )
        request = embedder_pb2.EmbedTextsRequest(texts=texts, options=options)
        return Answered(request=request, response=await self._stub.EmbedTexts(request, timeout=timeout))


class RerankerCalls(_Calls):
    """Calls of the reranker."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = reranker_pb2_grpc.RerankerServiceStub(self._channel)

    async def precision(self) -> str:
        """Engine and number format, with its streams."""
        return _precision((await self._stub.GetModel(reranker_pb2.GetModelRequest(), timeout=_SECONDS)).model.engine)

    async def rerank(
        self, query: str, documents: Sequence[str], *, timeout: float = _SECONDS
    ) -> tuple[float, Answered]:
        """Scores documents: seconds, and the answer. Raises grpc.aio.AioRpcError."""
        request = reranker_pb2.RerankDocumentsRequest(query=query, documents=documents)
        began = time.perf_counter()
        response = await self._stub.RerankDocuments(request, timeout=timeout)
        return time.perf_counter() - began, Answered(request=request, response=response)


def passage_options() -> embedder_pb2.EmbedOptions:
    """Options of bulk work."""
    return embedder_pb2.EmbedOptions(input_type=embedder_pb2.INPUT_TYPE_PASSAGE, priority=embedder_pb2.PRIORITY_BULK)


def _embedded(batch: embedder_pb2.TextBatch, response: embedder_pb2.StreamEmbedTextsResponse) -> Answered:
    """Raises Internal for a batch that was refused."""
    if response.WhichOneof("outcome") != "embedded":
        raise Internal(f"a batch of the stream was refused: {response.refused.message}")
    return Answered(request=batch, response=response.embedded)


def _precision(engine: Any) -> str:
    return short_precision(engine.name, engine.dtype, streams=getattr(engine, "stream_count", 0))


def short_precision(engine: str, dtype: str, *, streams: int) -> str:
    """Engine and number format on few columns: "openvino bf16 ×2" computes two batches side by side."""
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}.get(dtype, dtype)
    return f"{engine} {short}" + (f" ×{streams}" if streams > 1 else "")
