"""The reranker over a real server on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from tests.models.gated_engine import GatedEngine
from winnow.reranker.v1 import reranker_pb2_grpc as pb_grpc
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.opening import OpenModel, open_cross_encoder
from winnow_reranker.assembly import default_model, serve_with
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.serving import RunningServer

Stub = pb_grpc.RerankerServiceStub


def open_tiny(folder: Path) -> OpenModel[CrossEncoderFacts]:
    """A small model, computed as its library does."""
    return open_cross_encoder(RerankerSettings(model=str(folder), device="cpu", engine="torch"), default=default_model)


@contextlib.asynccontextmanager
async def serving(
    model: OpenModel[CrossEncoderFacts], *, engine: GatedEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """The service over a model, on a port of its own."""
    options = RerankerSettings.model_validate({"port": 0, "probe_seconds": 60, "drain_seconds": 0, **settings})
    if engine:
        model = replace(model, make_engine=lambda: engine)
    server = RunningServer(await serve_with(model, options), options)
    await server.start()
    if engine:  # forget the warm-up and the first probe
        while engine.began.acquire(blocking=False):
            pass
        engine.sizes.clear()
    channel = grpc.aio.insecure_channel(server.address)
    try:
        yield Stub(channel), channel
    finally:
        if engine:
            engine.gate.set()
        await channel.close()
        await server.stop()
