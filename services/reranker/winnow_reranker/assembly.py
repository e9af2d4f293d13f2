"""Puts the service together from its settings: model, queue, servicer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from winnow.reranker.v1 import reranker_pb2_grpc as pb_grpc
from winnow_inference.cross_encoder import CrossEncoder
from winnow_inference.metrics import measure
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.models.learned import Learned
from winnow_inference.models.locating import ModelFolder
from winnow_inference.opening import OpenModel, open_cross_encoder
from winnow_inference.scheduling.limits import runner_limits
from winnow_reranker.servicer import SERVICE_NAME, RerankerLimits, RerankerServicer
from winnow_reranker.settings import RerankerSettings
from winnow_rpc import telemetry
from winnow_rpc.faults import NotFound
from winnow_rpc.serving import Service

log = telemetry.get_logger("winnow.reranker")


async def assemble(settings: RerankerSettings) -> Service:
    """The service, its model loaded and its engine made. Raises a Fault in one sentence if that cannot be."""
    model = await asyncio.to_thread(open_cross_encoder, settings, default=default_model)
    return await serve_with(model, settings)


async def serve_with(model: OpenModel[CrossEncoderFacts], settings: RerankerSettings) -> Service:
    """The service over a model."""
    facts = model.facts
    encoder = CrossEncoder(model, runner_limits(settings, max_token_count=facts.max_token_count))
    limits = RerankerLimits(
        max_document_count=settings.max_document_count,
        max_text_bytes=settings.max_text_bytes,
        max_message_bytes=settings.max_message_bytes,
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
        labels=len(facts.labels),
        activation=facts.activation_name,
        mixing=_told(model.learned),
        calibrated=model.learned.calibration is not None,
        max_tokens=facts.max_token_count,
    )

    def register(server: grpc.aio.Server) -> None:
        pb_grpc.add_RerankerServiceServicer_to_server(RerankerServicer(encoder, limits), server)

    return Service(
        name="reranker",
        register=register,
        service_names=[SERVICE_NAME],
        probe=encoder.probe,
        close=encoder.close,
        measure=lambda registry: measure(encoder, registry),
    )


def _told(learned: Learned) -> str:
    """What mixing it recommends, for the log."""
    kinds = learned.score_mixings.model_dump(exclude_none=True)
    return f"scores ({', '.join(kinds)})" if kinds else "ranks" if learned.mixing else "none"


def default_model() -> ModelFolder:
    """The cross-encoder that ships in the repository, as seen from a checkout. Raises NotFound anywhere else."""
    for above in Path(__file__).resolve().parents:
        if (above / "models" / "reranker" / "config.json").is_file():
            return ModelFolder(path=above / "models" / "reranker", id="models/reranker")
    raise NotFound(
        "no model is set and none is found beside the code: set --model or WINNOW_RERANKER_MODEL",
        reason="MODEL_NOT_FOUND",
    )
