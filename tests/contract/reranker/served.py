"""The reranker over a real server on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tests.models.gated_engine import GatedEngine
from winnow.reranker.v1 import reranker_pb2_grpc as pb_grpc
from winnow_inference.cross_encoder import CrossEncoder
from winnow_inference.loading import LoadedCrossEncoder
from winnow_inference.runner import runner_limits
from winnow_reranker.assembly import serve_with
from winnow_reranker.settings import RerankerSettings
from winnow_rpc.serving import RunningServer

Stub = pb_grpc.RerankerServiceStub


@contextlib.asynccontextmanager
async def serving(
    model: LoadedCrossEncoder, *, engine: GatedEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """The service over a model, on a port of its own."""
    options = RerankerSettings.model_validate({"port": 0, "probe_seconds": 60, "drain_seconds": 0, **settings})
    make_engine = (lambda: engine) if engine else None
    encoder = CrossEncoder(model, runner_limits(options, on_cpu=True), make_engine=make_engine)
    server = RunningServer(await serve_with(encoder, options), options)
    await server.start()
    if engine:  # forget the first probe
        await asyncio.to_thread(engine.began.acquire)
        engine.sizes.clear()
    channel = grpc.aio.insecure_channel(server.address)
    try:
        yield Stub(channel), channel
    finally:
        if engine:
            engine.gate.set()
        await channel.close()
        await server.stop()
