"""The embedder over a real server on a port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc

from tests.models.gated_engine import GatedEngine
from winnow.embedder.v1 import embedder_pb2_grpc as pb_grpc
from winnow_embedder.assembly import serve_with
from winnow_embedder.settings import EmbedderSettings
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel
from winnow_rpc.serving import RunningServer

Stub = pb_grpc.EmbedderServiceStub


@contextlib.asynccontextmanager
async def serving(
    model: OpenModel[BiEncoderFacts], *, engine: GatedEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[Stub, grpc.aio.Channel]]:
    """The service over a model, on a port of its own."""
    options = EmbedderSettings.model_validate({"port": 0, "probe_seconds": 60, "drain_seconds": 0, **settings})
    if engine:
        model = replace(model, make_engine=lambda: engine)
    server = RunningServer(await serve_with(model, options), options)
    await server.start()
    if engine:  # forget the warm-up and the first probe
        while engine.began.acquire(blocking=False):
            pass
        engine.sizes.clear()
    channel = grpc.aio.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)])
    try:
        yield Stub(channel), channel
    finally:
        if engine:
            engine.gate.set()
        await channel.close()
        await server.stop()
