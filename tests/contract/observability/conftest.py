"""All four services in this process, over small models and an index of their own: what they trace and count."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.reranker.served import open_tiny
from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow_client import AsyncClient, Document
from winnow_embedder import assembly as embedder_assembly
from winnow_embedder.settings import EmbedderSettings
from winnow_gateway.__main__ import compose
from winnow_gateway.settings import GatewaySettings
from winnow_index.serving import open_service
from winnow_index.settings import IndexSettings
from winnow_inference.models.facts import BiEncoderFacts, CrossEncoderFacts
from winnow_inference.opening import OpenModel, open_bi_encoder
from winnow_reranker import assembly as reranker_assembly
from winnow_reranker.settings import RerankerSettings
from winnow_rpc import tracing
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings

_SERVING = {"port": 0, "metrics_port": 0, "probe_seconds": 60, "drain_seconds": 0}


@dataclass(frozen=True)
class Models:
    """Small ones."""

    bi_encoder: OpenModel[BiEncoderFacts]
    cross_encoder: OpenModel[CrossEncoderFacts]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    bi_encoder = build_bi_encoder(folder / "b")
    return Models(
        open_bi_encoder(EmbedderSettings(model=str(bi_encoder), device="cpu", engine="torch")),
        open_tiny(build_cross_encoder(folder / "c")),
    )


@dataclass
class Services:
    """The running services by name, and a client of the gateway."""

    servers: dict[str, RunningServer]
    client: AsyncClient

    async def scraped(self, service: str) -> Scrape:
        """What a service's port for metrics answers now."""
        return await scrape(self.servers[service])


class Scrape:
    """Samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels, others whatever; 0 if there are none."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def names(self) -> set[str]:
        """Names of all samples."""
        return {sample.name for sample in self.samples}

    def labels(self, name: str, label: str) -> set[str]:
        """The values that a label has."""
        return {sample.labels[label] for sample in self.samples if sample.name == name}


async def scrape(server: RunningServer) -> Scrape:
    def read() -> str:
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return Scrape(await asyncio.to_thread(read))


@asynccontextmanager
async def serving(service: Service, settings: ServingSettings) -> AsyncIterator[RunningServer]:
    server = RunningServer(service, settings)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def running_services(models: Models, folder: Path, **gateway: object) -> AsyncIterator[Services]:
    embedder = EmbedderSettings.model_validate(_SERVING)
    reranker = RerankerSettings.model_validate(_SERVING)
    index = IndexSettings.model_validate({**_SERVING, "data_dir": folder})
    async with AsyncExitStack() as stack:
        servers = {
            "embedder": await stack.enter_async_context(
                serving(await embedder_assembly.serve_with(models.bi_encoder, embedder), embedder)
            ),
            "reranker": await stack.enter_async_context(
                serving(await reranker_assembly.serve_with(models.cross_encoder, reranker), reranker)
            ),
            "index": await stack.enter_async_context(serving(open_service(index), index)),
        }
        options = GatewaySettings.model_validate(
            {**_SERVING, **{name: server.address for name, server in servers.items()}, **gateway}
        )
        servers["gateway"] = await stack.enter_async_context(serving(compose(options), options))
        client = await stack.enter_async_context(AsyncClient(servers["gateway"].address))
        yield Services(servers, client)


@pytest.fixture
async def services(models: Models, tmp_path: Path) -> AsyncIterator[Services]:
    """The four services, with a collection "docs" of three documents."""
    async with running_services(models, tmp_path / "index") as running:
        await running.client.create_collection("docs")
        documents = [Document(id=str(n), text=f"text number {n} about cats") for n in range(3)]
        async for acknowledged in running.client.ingest("docs", documents):
            assert not acknowledged.refusal
        yield running


class Traces:
    """Spans that have ended, in memory."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def clear(self) -> None:
        """Forgets them."""
        self._exporter.clear()

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All that have ended, in that order."""
        return self._exporter.get_finished_spans()

    def tree(self) -> dict[str, list[str]]:
        """Name of a parent, "" for none → names of its spans, by when they began."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        found: dict[str, list[str]] = {}
        for span in sorted(self.spans, key=lambda span: span.start_time or 0):
            parent = names.get(span.parent.span_id, "elsewhere") if span.parent else ""
            found.setdefault(parent, []).append(span.name)
        return found

    def one(self, name: str) -> ReadableSpan:
        """The one span of a name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def traces() -> Iterator[Traces]:
    """Turns tracing on, into memory, for the test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    try:
        yield Traces(exporter)
    finally:
        tracing.use(None)
        provider.shutdown()
