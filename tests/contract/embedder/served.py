"""The embedder over a real server on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tests.models.gated_engine import GatedEngine
from winnow.embedder.v1 import embedder_pb2_grpc as pb_grpc
from winnow_embedder.assembly import serve_with
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.bi_encoder import BiEncoder
from winnow_inference.loading import LoadedBiEncoder
from winnow_inference.runner import runner_limits
from winnow_rpc.serving import RunningServer

Stub = pb_grpc.EmbedderServiceStub


@contextlib.asynccontextmanager
async def serving(
    model: LoadedBiEncoder, *, engine: GatedEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """The service over a model, on a port of its own."""
    options = EmbedderSettings.model_validate({"port": 0, "probe_seconds": 60, "drain_seconds": 0, **settings})
    make_engine = (lambda: engine) if engine else None
    encoder = BiEncoder(model, runner_limits(options, on_cpu=True), make_engine=make_engine)
    server = RunningServer(await serve_with(encoder, options), options)
    await server.start()
    if engine:  # forget the first probe
        await asyncio.to_thread(engine.began.acquire)
        engine.sizes.clear()
    channel = grpc.aio.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)])
    try:
        yield Stub(channel), channel
    finally:
        if engine:
            engine.gate.set()
        await channel.close()
        await server.stop()
