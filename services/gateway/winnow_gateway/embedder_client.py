"""The embedder, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import grpc
import numpy as np

from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_gateway.backend_faults import named
from winnow_gateway.collections import EmbedderModel, Similarity
from winnow_gateway.ports import EmbeddedTexts
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.status import fault_from_rpc_error
from winnow_rpc.tls import ClientTls

_SIMILARITIES = {
    embedder_pb2.SIMILARITY_COSINE: Similarity.COSINE,
    embedder_pb2.SIMILARITY_DOT: Similarity.DOT,
    embedder_pb2.SIMILARITY_EUCLIDEAN: Similarity.EUCLIDEAN,
    embedder_pb2.SIMILARITY_MANHATTAN: Similarity.MANHATTAN,
}


_BACKEND = "embedder"


class GrpcEmbedder:
    """Implements `ports.Embedder`. What the served model is is asked at most once every `model_cache_seconds`."""

    def __init__(
        self,
        *,
        target: str,
        max_message_bytes: int,
        model_cache_seconds: float,
        tls: ClientTls | None = None,
        silence_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = open_channel(
            ChannelSettings(
                target=target,
                # Embedding has no effect but its answer: all of it may be repeated.
                idempotent={"winnow.embedder.v1.EmbedderService": ["EmbedTexts", "GetModel"]},
                max_message_bytes=max_message_bytes,
                tls=tls,
                silence_seconds=silence_seconds,
            )
        )
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(self._channel)
        self._cache_seconds = model_cache_seconds
        self._clock = clock
        self._known: tuple[float, EmbedderModel] | None = None

    @property
    def backends(self) -> Sequence[str]:
        """Its one name."""
        return [_BACKEND]

    def backend(self, fingerprint: str) -> str:
        """Its one name."""
        return _BACKEND

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> EmbedderModel:
        """The model that is served now, at most the cache time old."""
        if self._known and self._clock() - self._known[0] < self._cache_seconds:
            return self._known[1]
        try:
            response = await self._stub.GetModel(embedder_pb2.GetModelRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise named(fault_from_rpc_error(error), "embedder") from error
        model = EmbedderModel(
            id=response.model.id,
            fingerprint=response.model.fingerprint,
            dimension=response.model.dimension,
            similarity=_SIMILARITIES[response.model.similarity],
        )
        self._known = (self._clock(), model)
        return model

    async def embed_query(self, query: str, *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        """The vector of a query."""
        options = embedder_pb2.EmbedOptions(
            input_type=embedder_pb2.INPUT_TYPE_QUERY,
            priority=embedder_pb2.PRIORITY_INTERACTIVE,
            model_fingerprint=fingerprint,
        )
        return await self._embed([query], options, timeout)

    async def embed_passages(
        self, passages: Sequence[str], *, fingerprint: str, timeout: float | None = None
    ) -> EmbeddedTexts:
        """Vectors of passages, as bulk work."""
        options = embedder_pb2.EmbedOptions(
            input_type=embedder_pb2.INPUT_TYPE_PASSAGE,
            priority=embedder_pb2.PRIORITY_BULK,
            model_fingerprint=fingerprint,
        )
        return await self._embed(passages, options, timeout)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def _embed(
        self, texts: Sequence[str], options: embedder_pb2.EmbedOptions, timeout: float | None
    ) -> EmbeddedTexts:
        request = embedder_pb2.EmbedTextsRequest(texts=texts, options=options)
        try:
            response = await self._stub.EmbedTexts(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            # Whatever it is, what we remember of the model may be the reason.
            self._known = None
            raise named(fault_from_rpc_error(error), "embedder") from error
        batch = response.vectors
        return EmbeddedTexts(
            vectors=np.frombuffer(batch.data, dtype="<f4").reshape(batch.count, batch.dimension),
            dropped_token_counts={cut.index: cut.dropped_token_count for cut in response.report.truncations},
            token_count=response.report.token_count,
            inference_micros=response.report.timing.inference_micros,
            model_fingerprint=response.report.model_fingerprint,
        )
