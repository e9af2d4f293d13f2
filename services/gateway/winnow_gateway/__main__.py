"""Composition root of the gateway: the only place that reads flags and environment."""

from __future__ import annotations

from winnow.search.v1 import search_service_pb2, search_service_pb2_grpc
from winnow_gateway.admission import AdmissionSettings
from winnow_gateway.authorizing import KeyAuthorizer
from winnow_gateway.breaking import BreakerSettings
from winnow_gateway.catalog import Catalog
from winnow_gateway.embedder_client import GrpcEmbedder
from winnow_gateway.embedders import Embedders
from winnow_gateway.ingesting import IngestLimits
from winnow_gateway.metrics import measure
from winnow_gateway.qdrant_collections import Spread
from winnow_gateway.qdrant_connection import IndexAccess
from winnow_gateway.qdrant_index import QdrantIndex
from winnow_gateway.reembedding import Reembedder, ReembedLimits
from winnow_gateway.reranker_client import GrpcReranker
from winnow_gateway.searching import Searcher, SearchSettings
from winnow_gateway.servicer import SearchServicer
from winnow_gateway.settings import GatewaySettings
from winnow_rpc.serving import Service, run, serve
from winnow_rpc.settings import command_line, read_settings
from winnow_rpc.telemetry import configure_logging, get_logger

log = get_logger("winnow.gateway")


def compose(settings: GatewaySettings) -> Service:
    """The gateway, wired to its backends. Call inside a running event loop."""
    embedder_clients = [
        GrpcEmbedder(
            target=target,
            max_message_bytes=settings.max_message_bytes,
            model_cache_seconds=settings.model_cache_seconds,
            tls=settings.backend_client_tls,
            silence_seconds=settings.backend_silence_seconds,
        )
        for target in (settings.embedder, settings.embedder_former)
        if target
    ]
    embedder = Embedders(*embedder_clients)
    reranker = GrpcReranker(
        target=settings.reranker,
        max_message_bytes=settings.max_message_bytes,
        model_cache_seconds=settings.model_cache_seconds,
        tls=settings.backend_client_tls,
        silence_seconds=settings.backend_silence_seconds,
    )
    host, _, port = settings.index.rpartition(":")
    index = QdrantIndex(
        host=host,
        port=int(port),
        timeout_seconds=settings.index_timeout_seconds,
        max_message_bytes=settings.max_message_bytes,
        access=index_access(settings),
        spread=Spread(
            shards=settings.index_shards,
            replicas=settings.index_replicas,
            write_consistency=settings.index_write_consistency,
        ),
    )
    catalog = Catalog(index=index, embedder=embedder, cache_seconds=settings.model_cache_seconds)
    searcher = Searcher(
        catalog=catalog, embedder=embedder, reranker=reranker, index=index, settings=search_settings(settings)
    )
    reembedder = Reembedder(
        catalog=catalog,
        index=index,
        embedder=embedder,
        limits=ReembedLimits(
            group_size=settings.ingest_group_size,
            groups_in_flight=settings.ingest_groups_in_flight,
            retry_seconds=settings.ingest_retry_seconds,
            grace_seconds=settings.reembed_grace_seconds,
        ),
    )
    servicer = SearchServicer(
        catalog=catalog,
        searcher=searcher,
        embedder=embedder,
        index=index,
        reembedder=reembedder,
        ingest_limits=IngestLimits(
            group_size=settings.ingest_group_size,
            groups_in_flight=settings.ingest_groups_in_flight,
            read_ahead=4 * settings.ingest_group_size,
            retry_seconds=settings.ingest_retry_seconds,
        ),
        default_deadline_seconds=settings.default_deadline_seconds,
    )

    async def probe() -> None:
        # Without the index nothing can be answered; without a model service something can, so those do not count here.
        await index.collection_names()

    async def close() -> None:
        for client in embedder_clients:
            await client.close()
        await reranker.close()
        await index.close()

    return Service(
        name="gateway",
        register=lambda server: search_service_pb2_grpc.add_SearchServiceServicer_to_server(servicer, server),
        service_names=[search_service_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name],
        probe=probe,
        close=close,
        measure=lambda registry: measure(registry, searcher, servicer, reembedder),
        authorizer=KeyAuthorizer(settings.api_keys_file) if settings.api_keys_file else None,
    )


def index_access(settings: GatewaySettings) -> IndexAccess:
    """How the index is spoken to, from the settings."""
    key = settings.index_api_key.get_secret_value() if settings.index_api_key else None
    if (key or settings.index_api_key_file) and settings.index_client_tls is None:
        log.warning("the index's API key goes over plain text", index=settings.index)
    return IndexAccess(tls=settings.index_client_tls, api_key=key or None, api_key_file=settings.index_api_key_file)


def search_settings(settings: GatewaySettings) -> SearchSettings:
    """How searches spend their time, from the settings."""
    return SearchSettings(
        margin_seconds=settings.answer_margin_millis / 1000,
        admission=AdmissionSettings(
            max_searches=settings.max_searches,
            max_work_seconds=settings.max_work_seconds,
            sharing=settings.search_sharing,
        ),
        breaker=BreakerSettings(
            failures=settings.breaker_failures,
            first_pause_seconds=settings.breaker_pause_seconds / 4,
            longest_pause_seconds=settings.breaker_pause_seconds,
        ),
    )


async def main() -> None:
    """Reads the settings and serves until told to stop."""
    settings = read_settings(
        GatewaySettings, prefix="WINNOW_GATEWAY_", program="python -m winnow_gateway", argv=command_line()
    )
    configure_logging(service="gateway", level=settings.log_level, form=settings.log_format)
    await serve(compose(settings), settings)


if __name__ == "__main__":
    run(main, service="gateway")
