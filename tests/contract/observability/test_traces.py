"""One search is one trace, through every service that had a part in it."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace

from tests.contract.observability.conftest import Services, Traces
from winnow.search.v1 import search_pb2, search_service_pb2_grpc
from winnow_client import Client, SearchMode
from winnow_rpc import telemetry, tracing
from winnow_rpc.faults import NotFound

SEARCH = "winnow.search.v1.SearchService/Search"
EMBED = "winnow.embedder.v1.EmbedderService/EmbedTexts"
RERANK = "winnow.reranker.v1.RerankerService/StreamRerankDocuments"
QUERY = "qdrant.Points/QueryBatch"


async def searched(services: Services, traces: Traces, **options: Any) -> None:
    """One search, once everything that is asked once has been asked."""
    options = {"mode": SearchMode.TWO_STAGE, **options}
    await services.client.search("docs", "cats", **options)
    await settled(traces)
    traces.clear()
    await services.client.search("docs", "cats", **options)
    await settled(traces)


async def settled(traces: Traces) -> None:
    """A service ends its span a moment after its caller has the answer: waits until no more end."""
    count = -1
    while count != len(traces.spans):
        count = len(traces.spans)
        await asyncio.sleep(0.1)


async def test_a_search_is_one_trace_with_a_span_for_every_stage(services: Services, traces: Traces) -> None:
    await searched(services, traces)
    assert len({span.context.trace_id for span in traces.spans if span.context}) == 1
    tree = traces.tree()
    # The SDK's span, and within it the one of the gateway, of the same name.
    assert tree[""] == [SEARCH]
    assert tree[SEARCH] == [SEARCH, "plan", "embed", "retrieve", "rerank", "order"]
    assert tree["embed"] == [EMBED]
    assert tree["retrieve"] == [QUERY]
    assert tree["rerank"] == [RERANK]
    assert set(tree[EMBED]) == set(tree[RERANK]) == {"batch"}
    assert "elsewhere" not in tree


async def test_a_mode_without_a_stage_has_no_span_for_it(services: Services, traces: Traces) -> None:
    await searched(services, traces, mode=SearchMode.LEXICAL)
    names = {span.name for span in traces.spans}
    assert "retrieve" in names
    assert not names & {"embed", "rerank", EMBED, RERANK}


async def test_the_span_of_a_model_service_says_what_it_cost_and_in_which_batch(
    services: Services, traces: Traces
) -> None:
    await searched(services, traces)
    call = dict(traces.one(RERANK).attributes or {})
    assert call["winnow.tokens"] > 0
    assert {"winnow.queue_micros", "winnow.tokenize_micros", "winnow.inference_micros"} <= call.keys()
    batches = [span for span in traces.spans if span.name == "batch" and span.parent is not None]
    ridden = [
        dict(span.attributes or {})
        for span in batches
        if span.parent and span.parent.span_id == traces.one(RERANK).context.span_id
    ]
    assert sum(batch["winnow.texts"] for batch in ridden) == 3
    assert sum(batch["winnow.tokens"] for batch in ridden) == call["winnow.tokens"]
    assert all(batch["winnow.batch"] > 0 and batch["winnow.padding_tokens"] >= 0 for batch in ridden)
    assert {batch["winnow.priority"] for batch in ridden} == {"interactive"}
    for span in batches:
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 <= span.end_time - span.start_time < 60e9


async def test_the_span_of_the_search_says_what_came_of_it_and_not_what_was_asked(
    services: Services, traces: Traces
) -> None:
    await searched(services, traces)
    served = next(span for span in traces.spans if span.name == SEARCH and span.kind is trace.SpanKind.SERVER)
    said = dict(served.attributes or {})
    assert said["winnow.mode"] == "two-stage"
    assert said["winnow.reranked"] == 3
    assert said["winnow.degradations"] == ""
    assert said["rpc.grpc.status_code"] == 0
    assert not any("cats" in str(value) for span in traces.spans for value in (span.attributes or {}).values())


async def test_a_stream_of_states_is_one_trace_too(services: Services, traces: Traces) -> None:
    stream = "winnow.search.v1.SearchService/StreamSearch"
    async for _ in services.client.stream_search("docs", "cats", mode=SearchMode.TWO_STAGE):
        pass
    await settled(traces)
    roots = [span for span in traces.spans if span.name == stream and span.parent is None]
    assert len(roots) == 1
    assert {"plan", "embed", "retrieve", "rerank", "order"} <= {
        span.name
        for span in traces.spans
        if span.context and roots[0].context and span.context.trace_id == roots[0].context.trace_id
    }


async def test_a_callers_own_span_is_the_root_even_of_a_blocking_client(services: Services, traces: Traces) -> None:
    def search() -> None:
        with Client(services.servers["gateway"].address) as client, tracing.span("a user's request"):
            client.search("docs", "cats")

    traces.clear()
    await asyncio.to_thread(search)
    await settled(traces)
    assert traces.tree()[""] == ["a user's request"]


async def test_a_caller_who_traces_with_another_library_is_followed(services: Services, traces: Traces) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with grpc.aio.insecure_channel(services.servers["gateway"].address) as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        await stub.Search(
            search_pb2.SearchRequest(collection="docs", query="cats"),
            metadata=(("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01"),),
        )
    await settled(traces)
    served = traces.one(SEARCH)
    assert served.parent is not None
    assert trace.format_trace_id(served.parent.trace_id) == trace_id
    assert trace.format_span_id(served.parent.span_id) == "00f067aa0ba902b7"


async def test_what_the_caller_does_not_sample_is_recorded_nowhere(services: Services, traces: Traces) -> None:
    await settled(traces)
    traces.clear()
    async with grpc.aio.insecure_channel(services.servers["gateway"].address) as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        await stub.Search(
            search_pb2.SearchRequest(collection="docs", query="cats"),
            metadata=(("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),),
        )
    await settled(traces)
    assert traces.spans == ()


async def test_health_checks_are_not_traced_nor_what_a_probe_calls(services: Services, traces: Traces) -> None:
    await settled(traces)
    traces.clear()
    async with grpc.aio.insecure_channel(services.servers["gateway"].address) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    # The gateway's probe calls the index.
    await services.servers["gateway"]._probe_once()
    await settled(traces)
    assert traces.spans == ()


async def test_a_failed_call_is_marked_with_its_reason(services: Services, traces: Traces) -> None:
    with pytest.raises(NotFound):
        await services.client.search("nowhere", "cats")
    await settled(traces)
    served = next(span for span in traces.spans if span.name == SEARCH and span.kind is trace.SpanKind.SERVER)
    assert dict(served.attributes or {})["winnow.reason"] == "NO_COLLECTION"
    # By the conventions a caller's mistake is no failure of the server, but it is one of the caller's call.
    assert served.status.status_code is trace.StatusCode.UNSET
    called = next(span for span in traces.spans if span.name == SEARCH and span.kind is trace.SpanKind.CLIENT)
    assert called.status.status_code is trace.StatusCode.ERROR


async def test_log_lines_of_a_traced_call_bear_its_trace(services: Services, traces: Traces) -> None:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    written = io.StringIO()
    try:
        telemetry.configure_logging(service="gateway", form="json")
        handler = root.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(written)
        with pytest.raises(NotFound):
            await services.client.search("nowhere", "cats")
        await settled(traces)
    finally:
        root.handlers, root.level = before
    called = next(span for span in traces.spans if span.name == SEARCH and span.kind is trace.SpanKind.CLIENT)
    assert called.context is not None
    assert f'"trace_id": "{trace.format_trace_id(called.context.trace_id)}"' in written.getvalue()
