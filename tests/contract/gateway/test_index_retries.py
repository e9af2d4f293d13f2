"""What a search asks of the index is asked again while the index restarts."""

from typing import Any

import grpc
from qdrant_client.grpc import collections_pb2, collections_service_pb2_grpc

from winnow_gateway.qdrant_index import QdrantIndex


class Restarting(collections_service_pb2_grpc.CollectionsServicer):
    """Is not there for the first call."""

    def __init__(self) -> None:
        self.calls = 0

    async def ListAliases(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        self.calls += 1
        if self.calls == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        alias = collections_pb2.AliasDescription(alias_name="docs~live", collection_name="docs~1")
        return collections_pb2.ListAliasesResponse(aliases=[alias])


async def test_where_a_collection_is_kept_is_asked_again() -> None:
    restarting = Restarting()
    server = grpc.aio.server()
    collections_service_pb2_grpc.add_CollectionsServicer_to_server(restarting, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    index = QdrantIndex(host="127.0.0.1", port=port, timeout_seconds=10, max_message_bytes=1024 * 1024)
    try:
        assert (await index.placements.placement("docs")).live == "docs~1"
    finally:
        await index.close()
        await server.stop(0)
    assert restarting.calls == 2
