"""EmbedderService over a bi-encoder: the only file here that knows the contract's messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import grpc
import numpy as np

from winnow.embedder.v1 import embedder_pb2 as pb
from winnow.embedder.v1 import embedder_pb2_grpc as pb_grpc
from winnow_embedder.validation import check_dimensions, check_fingerprint, check_texts
from winnow_inference.batch_tracing import CostTrace
from winnow_inference.bi_encoder import BiEncoder, Embedded
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.truncation import TextTruncation
from winnow_rpc.faults import Fault, InvalidArgument
from winnow_rpc.status import status_of

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["EmbedderService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]

_TRUNCATIONS = {
    pb.TRUNCATION_SIDE_UNSPECIFIED: TextTruncation.END,
    pb.TRUNCATION_SIDE_END: TextTruncation.END,
    pb.TRUNCATION_SIDE_START: TextTruncation.START,
}
_SIMILARITIES = {
    "cosine": pb.SIMILARITY_COSINE,
    "dot": pb.SIMILARITY_DOT,
    "euclidean": pb.SIMILARITY_EUCLIDEAN,
    "manhattan": pb.SIMILARITY_MANHATTAN,
}


@dataclass(frozen=True, kw_only=True)
class EmbedderLimits:
    """What one request may hold."""

    max_text_count: int
    """Texts of a request or batch."""
    max_text_bytes: int
    """Bytes of UTF-8 of a text."""
    max_message_bytes: int
    """Bytes of a gRPC message."""
    stream_read_ahead: int
    """Batches of one stream in work at once."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors that the model gives, falling."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of a request, checked."""

    query: bool
    truncation: TextTruncation
    dimensions: int
    half: bool
    priority: Priority


class EmbedderServicer(pb_grpc.EmbedderServiceServicer):
    """Answers for one loaded model."""

    def __init__(self, encoder: BiEncoder, limits: EmbedderLimits) -> None:
        self._encoder = encoder
        self._limits = limits

    async def EmbedTexts(self, request: pb.EmbedTextsRequest, context: Context) -> pb.EmbedTextsResponse:
        """Embeds one batch."""
        if not request.HasField("options"):
            raise _options_missing("options")
        options = self._options(request.options, default_priority=Priority.INTERACTIVE)
        self._check_texts(request.texts, field="texts")
        return await self._embed(request.texts, options, deadline=_deadline(context), wait_for_room=False)

    async def StreamEmbedTexts(
        self, requests: AsyncIterator[pb.StreamEmbedTextsRequest], context: Context
    ) -> AsyncIterator[pb.StreamEmbedTextsResponse]:
        """Embeds batch after batch; a few at a time, answered in order."""
        incoming = aiter(requests)
        first = await _next(incoming)
        if first is None:
            return
        if first.WhichOneof("content") != "options":
            raise _options_missing("options", "the first message of a stream must carry options")
        options = self._options(first.options, default_priority=Priority.BULK)
        deadline = _deadline(context)
        reading: asyncio.Task[pb.StreamEmbedTextsRequest | None] | None = asyncio.create_task(_next(incoming))
        in_work: deque[asyncio.Task[pb.StreamEmbedTextsResponse]] = deque()
        received = 0
        try:
            while reading or in_work:
                # While enough is in work nothing more is read, and gRPC's flow control stops the caller.
                readable = reading if len(in_work) < self._limits.stream_read_ahead else None
                awaited = [task for task in (readable, *islice(in_work, 1)) if task]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if readable and readable.done():
                    request = readable.result()
                    reading = asyncio.create_task(_next(incoming)) if request else None
                    if request:
                        texts = _batch_texts(request)
                        in_work.append(asyncio.create_task(self._answer(received, texts, options, deadline)))
                        received += 1
                if in_work and in_work[0].done():
                    yield in_work.popleft().result()
        finally:
            for task in (reading, *in_work):
                if task:
                    task.cancel()

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """Counts tokens without embedding."""
        query = _is_query(request.input_type, field="input_type")
        self._check_texts(request.texts, field="texts", may_be_blank=True)
        counts = await self._encoder.count_tokens(request.texts, query=query)
        return pb.CountTokensResponse(token_counts=counts, max_token_count=self._encoder.facts.max_token_count)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describes the model."""
        folder, facts, engine, limits = (
            self._encoder.model.folder,
            self._encoder.facts,
            self._encoder.engine,
            self._limits,
        )
        return pb.GetModelResponse(
            model=pb.Model(
                id=folder.id,
                revision=folder.revision,
                fingerprint=facts.fingerprint,
                dimension=facts.dimension,
                matryoshka_dimensions=limits.matryoshka_dimensions,
                max_token_count=facts.max_token_count,
                query_prompt=facts.query_prompt,
                passage_prompt=facts.passage_prompt,
                similarity=_SIMILARITIES[facts.similarity],
                normalized=facts.normalized,
                engine=pb.Engine(
                    name=engine.name,
                    device=engine.device,
                    dtype=engine.dtype,
                    thread_count=engine.threads,
                    stream_count=engine.streams,
                    reason=engine.reason,
                ),
                limits=pb.Limits(
                    max_text_count=limits.max_text_count,
                    max_text_bytes=limits.max_text_bytes,
                    max_message_bytes=limits.max_message_bytes,
                    max_queued_tokens=self._encoder.limits.max_queued_tokens,
                ),
            )
        )

    async def _answer(
        self, index: int, texts: Sequence[str], options: _Options, deadline: float | None
    ) -> pb.StreamEmbedTextsResponse:
        """The outcome of one batch of a stream; a fault is an outcome too."""
        try:
            self._check_texts(texts, field="batch.texts")
            embedded = await self._embed(texts, options, deadline=deadline, wait_for_room=True)
        except Fault as fault:
            return pb.StreamEmbedTextsResponse(batch_index=index, refused=status_of(fault))
        return pb.StreamEmbedTextsResponse(batch_index=index, embedded=embedded)

    async def _embed(
        self, texts: Sequence[str], options: _Options, *, deadline: float | None, wait_for_room: bool
    ) -> pb.EmbedTextsResponse:
        embedded = await self._encoder.embed(
            texts,
            query=options.query,
            truncation=options.truncation,
            dimensions=options.dimensions,
            priority=options.priority,
            deadline=deadline,
            wait_for_room=wait_for_room,
        )
        CostTrace().add(embedded)
        return _response(embedded, half=options.half, fingerprint=self._encoder.facts.fingerprint)

    def _check_texts(self, texts: Sequence[str], *, field: str, may_be_blank: bool = False) -> None:
        limits = self._limits
        check_texts(
            texts,
            max_count=limits.max_text_count,
            max_bytes=limits.max_text_bytes,
            field=field,
            may_be_blank=may_be_blank,
        )

    def _options(self, options: pb.EmbedOptions, *, default_priority: Priority) -> _Options:
        query = _is_query(options.input_type, field="options.input_type")
        check_fingerprint(options.model_fingerprint, loaded=self._encoder.facts.fingerprint)
        full = self._encoder.facts.dimension
        check_dimensions(options.dimensions, offered=self._limits.matryoshka_dimensions, full=full)
        if options.truncation_side not in _TRUNCATIONS:
            raise _unknown("options.truncation_side", options.truncation_side)
        if options.truncation_policy not in pb.TruncationPolicy.values():
            raise _unknown("options.truncation_policy", options.truncation_policy)
        if options.dtype not in pb.VectorDtype.values():
            raise _unknown("options.dtype", options.dtype)
        if options.priority not in pb.Priority.values():
            raise _unknown("options.priority", options.priority)
        refuse = options.truncation_policy == pb.TRUNCATION_POLICY_REFUSE
        priorities = {
            pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
            pb.PRIORITY_BULK: Priority.BULK,
        }
        return _Options(
            query=query,
            truncation=TextTruncation.REFUSE if refuse else _TRUNCATIONS[options.truncation_side],
            dimensions=0 if options.dimensions == full else options.dimensions,
            half=options.dtype == pb.VECTOR_DTYPE_FLOAT16,
            priority=priorities.get(options.priority, default_priority),
        )


async def _next(requests: AsyncIterator[pb.StreamEmbedTextsRequest]) -> pb.StreamEmbedTextsRequest | None:
    return await anext(requests, None)


def _batch_texts(request: pb.StreamEmbedTextsRequest) -> Sequence[str]:
    if request.WhichOneof("content") != "batch":
        raise InvalidArgument(
            "options come once, first; every later message must carry a batch", field="batch", reason="BATCH_EXPECTED"
        )
    return request.batch.texts


def _deadline(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _response(embedded: Embedded, *, half: bool, fingerprint: str) -> pb.EmbedTextsResponse:
    count, dimension = embedded.vectors.shape
    packed = np.ascontiguousarray(embedded.vectors, dtype="<f2" if half else "<f4")
    return pb.EmbedTextsResponse(
        vectors=pb.VectorBatch(
            data=packed.tobytes(),
            dtype=pb.VECTOR_DTYPE_FLOAT16 if half else pb.VECTOR_DTYPE_FLOAT32,
            dimension=dimension,
            count=count,
        ),
        report=pb.EmbedReport(
            token_count=embedded.token_count,
            truncations=[
                pb.Truncation(index=cut.index, kept_token_count=cut.kept, dropped_token_count=cut.dropped)
                for cut in embedded.cuts
            ],
            timing=pb.Timing(
                queue_micros=embedded.queue_micros,
                tokenize_micros=embedded.tokenize_micros,
                inference_micros=embedded.inference_micros,
            ),
            model_fingerprint=fingerprint,
        ),
    )


def _is_query(input_type: int, *, field: str) -> bool:
    if input_type == pb.INPUT_TYPE_QUERY:
        return True
    if input_type == pb.INPUT_TYPE_PASSAGE:
        return False
    if input_type == pb.INPUT_TYPE_UNSPECIFIED:
        raise InvalidArgument(
            f"{field} is missing; say INPUT_TYPE_QUERY or INPUT_TYPE_PASSAGE", field=field, reason="INPUT_TYPE_MISSING"
        )
    raise _unknown(field, input_type)


def _options_missing(field: str, message: str = "options are missing; options.input_type is required") -> Fault:
    return InvalidArgument(message, field=field, reason="OPTIONS_MISSING")


def _unknown(field: str, value: int) -> InvalidArgument:
    return InvalidArgument(f"{field} {value} is not known here", field=field, reason="UNKNOWN_VALUE")
