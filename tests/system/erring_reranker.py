"""A reranker that answers every request for scores with an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_rpc.faults import Internal
from winnow_rpc.serving import Service, run, serve
from winnow_rpc.settings import ServingSettings, command_line, read_settings
from winnow_rpc.telemetry import configure_logging


class ErringReranker(reranker_pb2_grpc.RerankerServiceServicer):
    """Knows its model, and cannot run it."""

    async def GetModel(self, request: Any, context: Any) -> Any:
        return reranker_pb2.GetModelResponse(model=reranker_pb2.Model(id="erring", fingerprint="e" * 64))

    async def StreamRerankDocuments(self, request: Any, context: Any) -> AsyncIterator[Any]:
        raise Internal("the model failed on a text", reason="INFERENCE_FAILED")
        yield


async def main() -> None:
    settings = read_settings(ServingSettings, prefix="UNUSED_", program="erring", argv=command_line())
    configure_logging(service="erring", form="json")

    async def nothing() -> None:
        return

    service = Service(
        name="erring",
        register=lambda server: reranker_pb2_grpc.add_RerankerServiceServicer_to_server(ErringReranker(), server),
        service_names=["winnow.reranker.v1.RerankerService"],
        probe=nothing,
        close=nothing,
    )
    await serve(service, settings)


if __name__ == "__main__":
    run(main)
