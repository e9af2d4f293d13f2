"""Metrics over HTTP have the values that calls have produced."""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from tests.certificates import Authority, Pair
from tests.contract.observability.conftest import Models, Services, running_services, scrape, serving
from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_client import Document, SearchMode
from winnow_embedder.assembly import serve_with
from winnow_embedder.settings import EmbedderSettings
from winnow_index.metrics import OTHERS, Held, named
from winnow_rpc.faults import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from winnow_rpc.metrics import MetricsServer, RpcMetrics, new_registry
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings

SEARCH = "winnow.search.v1.SearchService/Search"


async def test_calls_are_counted_by_method_and_code_and_timed(services: Services) -> None:
    for _ in range(3):
        await services.client.search("docs", "cats")
    with pytest.raises(NotFound):
        await services.client.search("nowhere", "cats")
    seen = await services.scraped("gateway")
    assert seen.value("winnow_rpc_requests_total", method=SEARCH, code="OK") == 3
    assert seen.value("winnow_rpc_requests_total", method=SEARCH, code="NOT_FOUND") == 1
    assert seen.value("winnow_rpc_seconds_count", method=SEARCH) == 4
    assert seen.value("winnow_rpc_seconds_sum", method=SEARCH) > 0


async def test_health_checks_and_unknown_methods_are_no_calls(services: Services) -> None:
    async with grpc.aio.insecure_channel(services.servers["embedder"].address) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/made.up/Method")(b"")
    seen = await services.scraped("embedder")
    # Labels are made of methods that exist: callers cannot make more.
    assert all("EmbedderService" in method for method in seen.labels("winnow_rpc_requests_total", "method"))


async def test_a_message_over_the_limit_is_counted_though_no_method_sees_it(services: Services) -> None:
    size = ServingSettings().max_message_bytes + 1
    async with grpc.aio.insecure_channel(
        services.servers["embedder"].address, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="RESOURCE_EXHAUSTED"):
            await channel.unary_unary("/winnow.embedder.v1.EmbedderService/GetModel")(bytes(size))
    seen = await services.scraped("embedder")
    assert seen.value("winnow_rpc_requests_total", code="RESOURCE_EXHAUSTED") == 1


async def test_a_search_is_counted_by_mode_stage_and_depth(services: Services) -> None:
    await services.client.search("docs", "cats", mode=SearchMode.TWO_STAGE)
    await services.client.search("docs", "cats", mode=SearchMode.RETRIEVE)
    seen = await services.scraped("gateway")
    assert seen.value("winnow_search_seconds_count", mode="two-stage") == 1
    assert seen.value("winnow_search_seconds_count", mode="retrieve") == 1
    stages = {s: seen.value("winnow_search_stage_seconds_count", stage=s) for s in ("embed", "retrieve", "rerank")}
    assert stages == {"embed": 2, "retrieve": 2, "rerank": 1}
    assert seen.value("winnow_search_rerank_depth_count") == 1
    assert seen.value("winnow_search_rerank_depth_sum") == 3
    assert seen.value("winnow_searches_in_progress") == 0


async def test_degradations_and_an_open_breaker_are_seen(models: Models, tmp_path: Path) -> None:
    async with running_services(models, tmp_path, breaker_failures=1, reranker="127.0.0.1:1") as services:
        await services.client.create_collection("docs")
        async for _ in services.client.ingest("docs", [Document(id="1", text="cats")]):
            pass
        before = await services.scraped("gateway")
        assert before.value("winnow_backend_breaker_state", backend="reranker", state="closed") == 1
        result = await services.client.search("docs", "cats", mode=SearchMode.TWO_STAGE)
        assert [each.kind.value for each in result.degradations] == ["rerank-skipped"]
        after = await services.scraped("gateway")
    assert after.value("winnow_search_degradations_total", kind="rerank-skipped") == 1
    assert after.value("winnow_search_rerank_depth_count") == 1
    assert after.value("winnow_search_rerank_depth_sum") == 0
    assert after.value("winnow_backend_breaker_state", backend="reranker", state="closed") == 0
    assert after.value("winnow_backend_breaker_state", backend="index", state="closed") == 1
    assert after.value("winnow_backend_breaker_state") == 3


async def test_documents_are_counted_by_what_became_of_them(services: Services) -> None:
    again = [Document(id="0", text="text number 0 about cats"), Document(id="", text="no id")]
    async for _ in services.client.ingest("docs", again):
        pass
    seen = await services.scraped("gateway")
    outcomes = {
        outcome: seen.value("winnow_ingest_documents_total", outcome=outcome)
        for outcome in ("indexed", "unchanged", "refused")
    }
    assert outcomes == {"indexed": 3, "unchanged": 1, "refused": 1}


async def test_a_model_service_counts_its_batches_and_their_padding(services: Services) -> None:
    before = await services.scraped("reranker")
    await services.client.search("docs", "cats", mode=SearchMode.TWO_STAGE)
    result = await services.client.search("docs", "cats", mode=SearchMode.TWO_STAGE)
    seen = await services.scraped("reranker")
    tokens = seen.value("winnow_batch_tokens_sum") - before.value("winnow_batch_tokens_sum")
    assert tokens == 2 * result.timing.rerank_token_count
    assert seen.value("winnow_batch_seconds_count", priority="interactive") > 0
    assert seen.value("winnow_batch_padding_tokens_total", priority="interactive") >= 0
    assert seen.value("winnow_queue_seconds_count", priority="interactive") > 0
    assert seen.labels("winnow_queue_tokens", "priority") == {"interactive", "bulk"}
    assert seen.value("winnow_queue_tokens") == 0
    assert seen.value("winnow_queue_capacity_tokens") > 0


async def test_what_a_model_service_refuses_is_counted(models: Models) -> None:
    settings = EmbedderSettings.model_validate(
        {"port": 0, "metrics_port": 0, "probe_seconds": 60, "drain_seconds": 0, "max_queued_tokens": 8}
    )
    async with (
        serving(await serve_with(models.bi_encoder, settings), settings) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        options = embedder_pb2.EmbedOptions(input_type=embedder_pb2.INPUT_TYPE_PASSAGE)
        request = embedder_pb2.EmbedTextsRequest(texts=["some cats and dogs"] * 10, options=options)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embedder_pb2_grpc.EmbedderServiceStub(channel).EmbedTexts(request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        seen = await scrape(server)
    assert seen.value("winnow_refusals_total") == 1
    assert seen.value("winnow_rpc_requests_total", code="RESOURCE_EXHAUSTED") == 1


async def test_the_index_says_what_it_holds_and_how_much_room_there_is(services: Services) -> None:
    seen = await services.scraped("index")
    assert seen.value("winnow_index_collections") == 1
    assert seen.value("winnow_index_points", collection="docs") == 3
    # Too few for a graph: none is due, so none is late.
    assert seen.value("winnow_index_lag_points", collection="docs") == 0
    assert seen.value("winnow_index_disk_bytes", collection="docs") > 0
    assert 0 < seen.value("winnow_index_volume_free_bytes") <= seen.value("winnow_index_volume_bytes")


async def test_every_service_says_what_its_process_takes(services: Services) -> None:
    for name in services.servers:
        seen = await services.scraped(name)
        assert seen.value("process_resident_memory_bytes") > 0
        assert seen.value("winnow_serving") == 1


def test_only_so_many_collections_have_labels_of_their_own() -> None:
    held = [Held(f"c{n}", n, n, 0, Path()) for n in range(5)]
    labels = named(held, most=2)
    assert {label: [each.name for each in those] for label, those in labels.items()} == {
        "c4": ["c4"],
        "c3": ["c3"],
        OTHERS: ["c2", "c1", "c0"],
    }


def test_refusals_are_counted_by_reason_and_other_faults_are_not() -> None:
    registry = new_registry()
    metrics = RpcMetrics(registry)
    metrics.refused(ResourceExhausted("full", reason="QUEUE_FULL"))
    metrics.refused(ResourceExhausted("full", reason="QUEUE_FULL"))
    metrics.refused(InvalidArgument("wrong"))
    assert registry.get_sample_value("winnow_refusals_total", {"reason": "QUEUE_FULL"}) == 2
    assert registry.get_sample_value("winnow_refusals_total", {"reason": "INVALID_ARGUMENT"}) is None
    for number in range(200):
        metrics.refused(ResourceExhausted("full", reason=f"MADE_UP_{number}"))
    reasons = {
        sample.labels["reason"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "winnow_refusals_total"
    }
    assert len(reasons) == 65
    assert "OTHER" in reasons


async def nothing(*_: Any) -> None:
    return None


EMPTY = Service(name="empty", register=lambda server: None, service_names=[], probe=nothing, close=nothing)


async def test_metrics_are_not_served_unless_asked_for() -> None:
    server = RunningServer(EMPTY, ServingSettings(drain_seconds=0))
    await server.start()
    assert server.metrics_address == ""
    await server.stop()


async def test_a_port_for_metrics_that_is_in_use_is_one_clear_fault() -> None:
    first = RunningServer(EMPTY, ServingSettings(drain_seconds=0, metrics_port=0))
    await first.start()
    port = int(first.metrics_address.rpartition(":")[2])
    second = RunningServer(EMPTY, ServingSettings(drain_seconds=0, metrics_port=port))
    with pytest.raises(Unavailable, match=f"cannot serve metrics on 127.0.0.1:{port}"):
        await second.start()
    await second.stop()
    assert (await scrape(first)).value("winnow_serving") == 1
    await first.stop()


async def test_other_paths_are_not_found_and_ipv6_is_spoken() -> None:
    server = MetricsServer(new_registry(), host="::1", port=0)
    try:

        def read(path: str) -> int:
            with urllib.request.urlopen(f"http://{server.address}{path}", timeout=10) as answer:
                return int(answer.status)

        assert await asyncio.to_thread(read, "/metrics") == 200
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(read, "/")
    finally:
        server.close()


def _metrics(address: str, context: ssl.SSLContext) -> str:
    with urllib.request.urlopen(f"https://{address}/metrics", timeout=10, context=context) as answer:
        return str(answer.read().decode())


def _trusting(authority: Authority, shown: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    if shown:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


async def test_metrics_are_secured_as_calls_are(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    ours, theirs = authority.issue("prometheus"), stranger.issue("prometheus")
    # Names are for those who call.
    settings = authority.server(clients=True, tls_client_names=("gateway",), metrics_port=0, drain_seconds=0)
    async with serving(EMPTY, ServingSettings(**settings)) as server:
        address = server.metrics_address
        # All the while there is a client that says nothing.
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))), capture_logs() as written:
            for shown in (None, theirs):
                with pytest.raises(OSError, match=r"alert|reset|EOF|closed"):
                    await asyncio.to_thread(_metrics, address, _trusting(authority, shown))
            with pytest.raises(OSError, match=r"reset|closed|Remote end"):
                await scrape(server)
            assert "winnow_serving 1.0" in await asyncio.to_thread(_metrics, address, _trusting(authority, ours))
            assert [line["peer"] for line in written] == ["127.0.0.1"] * 3


async def test_metrics_show_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    settings = authority.server(metrics_port=0, drain_seconds=0)
    async with serving(EMPTY, ServingSettings(**settings)) as server:
        assert "winnow_serving" in await asyncio.to_thread(_metrics, server.metrics_address, _trusting(authority))
        new = stranger.issue("127.0.0.1")
        settings["tls_certificate"].write_bytes(new.certificate.read_bytes())
        settings["tls_key"].write_bytes(new.key.read_bytes())
        await asyncio.sleep(1.1)
        assert "winnow_serving" in await asyncio.to_thread(_metrics, server.metrics_address, _trusting(stranger))
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(_metrics, server.metrics_address, _trusting(authority))
