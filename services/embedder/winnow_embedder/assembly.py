"""Puts the service together from its settings: model, queue, servicer."""

from __future__ import annotations

import asyncio

import grpc

from winnow.embedder.v1 import embedder_pb2_grpc as pb_grpc
from winnow_embedder.servicer import SERVICE_NAME, EmbedderLimits, EmbedderServicer
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.bi_encoder import BiEncoder
from winnow_inference.metrics import measure
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel, open_bi_encoder
from winnow_inference.scheduling.limits import runner_limits
from winnow_rpc import telemetry
from winnow_rpc.faults import InvalidArgument
from winnow_rpc.serving import Service

log = telemetry.get_logger("winnow.embedder")


async def assemble(settings: EmbedderSettings) -> Service:
    """The service, its model loaded and its engine made. Raises a Fault in one sentence if that cannot be."""
    model = await asyncio.to_thread(open_bi_encoder, settings)
    return await serve_with(model, settings)


async def serve_with(model: OpenModel[BiEncoderFacts], settings: EmbedderSettings) -> Service:
    """The service over a model."""
    facts = model.facts
    encoder = BiEncoder(model, runner_limits(settings, max_token_count=facts.max_token_count))
    limits = EmbedderLimits(
        max_text_count=settings.max_text_count,
        max_text_bytes=settings.max_text_bytes,
        max_message_bytes=settings.max_message_bytes,
        stream_read_ahead=settings.stream_read_ahead,
        matryoshka_dimensions=_falling(settings.matryoshka_dimensions, full=facts.dimension),
    )
    await encoder.start()
    engine = encoder.engine
    log.info(
        "model loaded",
        model=model.folder.id,
        fingerprint=facts.fingerprint[:12],
        engine=engine.name,
        device=engine.device,
        dtype=engine.dtype,
        streams=engine.streams,
        threads=engine.threads,
        why=engine.reason,
        dimension=facts.dimension,
        max_tokens=facts.max_token_count,
    )

    def register(server: grpc.aio.Server) -> None:
        pb_grpc.add_EmbedderServiceServicer_to_server(EmbedderServicer(encoder, limits), server)

    return Service(
        name="embedder",
        register=register,
        service_names=[SERVICE_NAME],
        probe=encoder.probe,
        close=encoder.close,
        measure=lambda registry: measure(encoder, registry),
    )


def _falling(dimensions: tuple[int, ...], *, full: int) -> tuple[int, ...]:
    """The shorter dimensions that the model can give, falling. Raises InvalidArgument for one that it cannot."""
    for dimension in dimensions:
        if not 0 < dimension < full:
            raise InvalidArgument(
                f"setting matryoshka_dimensions holds {dimension}; each must be between 1 and {full - 1}",
                field="matryoshka_dimensions",
                reason="BAD_SETTING",
            )
    return tuple(sorted(set(dimensions), reverse=True))
