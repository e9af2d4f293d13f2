"""Where traces go: nowhere unless the environment says so, and never at a caller's or a shutdown's expense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from qdrant_client import AsyncQdrantClient

from tests.contract.observability.conftest import Services
from winnow_client.cli.main import main
from winnow_lab.otlp_sink import OtlpSink
from winnow_rpc import trace_export, tracing
from winnow_rpc.faults import InvalidArgument

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """The command sets up logging for its process, which is the tests' here."""
    root, theirs = logging.getLogger(), logging.getLogger("opentelemetry")
    before = (root.handlers, root.level, theirs.level)
    yield
    root.handlers, root.level = before[:2]
    theirs.setLevel(before[2])
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY}, NOBODY),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOBODY}, NOBODY),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY, "OTEL_SDK_DISABLED": "True"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY, "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, NOBODY),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, NOBODY),
    ],
)
def test_traces_go_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert trace_export.endpoint(environment) == expected


def test_another_protocol_is_refused_in_one_sentence() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    with pytest.raises(InvalidArgument, match=r"'http/json'; traces are sent by grpc, .* or by http/protobuf"):
        trace_export.endpoint(environment)


def test_off_means_that_no_part_of_opentelemetry_is_loaded() -> None:
    script = """
import sys
from winnow_gateway import __main__
from winnow_client import AsyncClient
from winnow_embedder import servicer
from winnow_index import serving
from winnow_rpc import telemetry, trace_export, tracing
assert trace_export.start("winnow-gateway", {}) is False
tracing.adopt()
assert tracing.span("a") is tracing.serving_span("b", {}) is tracing.current() is tracing.NO_SPAN
assert telemetry.outgoing_headers() == {}
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert ended.stdout.strip() == "[]"


class Index:
    """The index as a process, with its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.lines.extend(stream)

    def events(self, name: str) -> list[dict[str, object]]:
        return [event for line in list(self.lines) if (event := json.loads(line))["event"] == name]

    async def logged(self, name: str) -> dict[str, object]:
        async with asyncio.timeout(60):
            while not (found := self.events(name)):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)
        return found[0]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=30)
        self._reader.join()
        return status


@contextmanager
def index_process(folder: Path, **environment: str) -> Iterator[Index]:
    command = [sys.executable, "-m", "winnow_index", "--port", "0", "--data-dir", str(folder), "--log-format", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        yield Index(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


async def list_collections(index: Index, times: int) -> None:
    address = str((await index.logged("serving"))["address"])
    client = AsyncQdrantClient(
        host="127.0.0.1", grpc_port=int(address.rpartition(":")[2]), prefer_grpc=True, check_compatibility=False
    )
    for _ in range(times):
        await client.get_collections()
    await client.close()


async def test_a_service_sends_what_it_has_when_it_drains(tmp_path: Path) -> None:
    async with OtlpSink() as sink:
        # It would not send for a minute by itself.
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        with index_process(tmp_path, **environment) as index:
            await list_collections(index, 3)
            assert await asyncio.to_thread(index.stop) == 0
        assert sink.spans == {("winnow-index", "qdrant.Collections/List"): 3}


@contextmanager
def http_sink() -> Iterator[tuple[OtlpSink, str]]:
    """A collector that takes traces over HTTP, and where it is."""
    sink = OtlpSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            right = (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            if right:
                sink.count(trace_service_pb2.ExportTraceServiceRequest.FromString(sent))
            self.send_response(200 if right else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield sink, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_traces_go_over_http_where_that_is_asked_for(tmp_path: Path) -> None:
    with http_sink() as (sink, endpoint):
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
        }
        with index_process(tmp_path, **environment) as index:
            await list_collections(index, 3)
            assert await asyncio.to_thread(index.stop) == 0
        assert sink.spans == {("winnow-index", "qdrant.Collections/List"): 3}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_is_away_fails_no_call_and_no_shutdown_and_is_told_of_once(
    tmp_path: Path, protocol: str
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY,
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    with index_process(tmp_path, **environment) as index:
        await list_collections(index, 20)
        await index.logged("traces cannot be sent; they are dropped")
        await list_collections(index, 20)
        began = time.monotonic()
        assert await asyncio.to_thread(index.stop) == 0
        # Draining has nothing to wait for; what is bounded is the sending, to two seconds.
        assert time.monotonic() - began < 20
    assert len(index.events("traces cannot be sent; they are dropped")) == 1
    assert {json.loads(line)["level"] for line in index.lines} <= {"info", "warning"}
    assert [line for line in index.lines if "retrying" in line or "Traceback" in line] == []


def test_what_cannot_be_sent_in_time_is_left_behind() -> None:
    holding = threading.Event()

    class Stuck:
        def shutdown(self) -> None:
            holding.wait(60)

    try:
        trace_export._provider = Stuck()  # type: ignore[assignment]
        trace_export.stop(0.05)
        assert trace_export._provider is None
        assert tracing.span("after") is tracing.NO_SPAN
    finally:
        holding.set()


async def test_the_command_is_the_root_of_its_trace(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    async with OtlpSink() as sink:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
            "WINNOW_GATEWAY": services.servers["gateway"].address,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ended = await asyncio.to_thread(CliRunner().invoke, main, ["search", "docs", "cats", "--json"])
        assert ended.exit_code == 0, ended.output
        # Standard output is the answer's alone.
        assert json.loads(ended.stdout)["hits"]
    assert sink.spans["winnow-cli", "winnow search"] == 1
    # Its call, at least: the services run in this process here and trace along, until the command has sent what it has.
    assert sink.spans["winnow-cli", "winnow.search.v1.SearchService/Search"] >= 1


def test_a_command_goes_on_where_the_collector_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    ended = CliRunner().invoke(main, ["--gateway", "127.0.0.1:1", "collections", "list"])
    assert ended.exit_code == 1
    assert "there is no gateway at 127.0.0.1:1" in ended.stderr
