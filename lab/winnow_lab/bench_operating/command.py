"""`winnow bench operating`: what it costs to run Winnow as one would: observed, and whatever else a variant turns on.

Each variant is a whole stack of real processes over the same documents. Searches go to one stack after the other, a few
at a time, with the first place taken in turn, so that what the machine does for its own reasons hits all alike. What a
variant costs is the ratio of its p50 to the plain stack's in the same run.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from winnow_client import AsyncClient, Document, SearchMode
from winnow_client.cli.output import table
from winnow_client.cli.processes_stack import EMBEDDER, RERANKER, Stack, StackConfig
from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_client.cli.supervision_log import Entry
from winnow_lab import bench_report
from winnow_lab.bench_figures import turns
from winnow_lab.bench_operating.costs import compared, memory_mib, nanoseconds, processor_seconds
from winnow_lab.bench_operating.variants import PLAIN, SERVICES, VARIANTS, Surroundings
from winnow_lab.otlp_sink import OtlpSink

MODES = (SearchMode.RETRIEVE, SearchMode.TWO_STAGE)
COLLECTION = "bench"

# Three times as often as deploy/observability/prometheus.yml does.
_SCRAPE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to run."""

    documents: int = 600
    rounds: int = 40
    block: int = 20
    """Searches in a row on one stack, in RETRIEVE mode; two-stage ones are a fifth of that."""
    depth: int = 50

    def searches(self, mode: SearchMode) -> int:
        """Searches of a block."""
        return self.block if mode is SearchMode.RETRIEVE else max(1, self.block // 5)


@dataclass(slots=True)
class Runner:
    """A variant's running stack."""

    stack: Stack
    client: AsyncClient
    starts: dict[str, float]
    metrics: dict[str, str]
    """Service → host:port of its metrics."""
    at_rest: dict[str, float] = field(default_factory=dict)
    asked: float = 0.0
    """When its metrics were last asked for."""
    latencies: dict[SearchMode, list[list[float]]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    """Milliseconds, by mode and round."""
    processor: dict[SearchMode, float] = field(default_factory=lambda: dict.fromkeys(MODES, 0.0))
    """Seconds that the services have computed for searches, by mode."""


async def bench(load: Load, names: Sequence[str], cache_dir: Path | None, progress: Progress) -> dict[str, Any]:
    """Runs the variants of these names beside the plain one; a dict of figures."""
    documents = _spread(stdlib_documents(), load.documents)
    names = list(dict.fromkeys((PLAIN, *names)))
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory(prefix="winnow-bench-")))
        sink = await exits.enter_async_context(OtlpSink())
        runners: dict[str, Runner] = {}
        task = progress.add_task("start and ingest", total=len(names))
        for name in names:
            runners[name] = await _start(exits, name, sink, folder / name, cache_dir)
            await _fill(runners[name].client, documents)
            progress.advance(task)
        spans_before = sink.spans.total()
        task = progress.add_task("search", total=load.rounds)
        for turn in range(load.rounds):
            for mode in MODES:
                queries = _queries(documents, load.searches(mode), turn)
                for position in turns(len(names), turn):
                    await _block(runners[names[position]], mode, queries, depth=load.depth)
            progress.advance(task)
        # What the last block left is sent within half a second.
        await asyncio.sleep(1.0)
        searches = load.rounds * sum(load.searches(mode) for mode in MODES)
        traced = sum(name in ("tracing", "telemetry") for name in names) + 0.1 * ("sampled" in names)
        return {
            "rounds": load.rounds,
            "depth": load.depth,
            "documents": len(documents),
            "spans_per_search": round((sink.spans.total() - spans_before) / searches / traced, 1) if traced else 0.0,
            "variants": {name: _figures(runners[name], runners[PLAIN]) for name in names},
            "nanoseconds": await asyncio.to_thread(nanoseconds),
        }


async def _start(exits: AsyncExitStack, name: str, sink: OtlpSink, folder: Path, cache_dir: Path | None) -> Runner:
    surroundings = Surroundings(collector=sink.endpoint, folder=folder)
    # Whatever this process is traced to is not to be measured.
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "", **VARIANTS[name].environment(surroundings)}
    if cache_dir:
        environment |= {f"WINNOW_{service.upper()}_CACHE_DIR": str(cache_dir) for service in (EMBEDDER, RERANKER)}
    began = time.perf_counter()
    starts: dict[str, float] = {}
    metrics: dict[str, str] = {}

    def listen(entry: Entry) -> None:
        if entry.event == "serving":
            starts.setdefault(entry.service, round(time.perf_counter() - began, 2))
        elif entry.event == "metrics":
            metrics[entry.service] = str(entry.facts["address"])

    reached = VARIANTS[name].config(surroundings)
    config = StackConfig(
        data=folder / "data",
        environment=environment,
        tls=reached.tls,
        gateway_port=0,
        index_port=0,
        embedder_port=0,
        reranker_port=0,
    )
    stack = await exits.enter_async_context(Stack(config, listener=listen))
    client = AsyncClient(stack.gateway_address, config=reached)
    runner = Runner(stack, await exits.enter_async_context(client), starts, metrics)
    runner.at_rest = memory_mib(stack.pids)
    return runner


async def _fill(client: AsyncClient, documents: Sequence[Document]) -> None:
    await client.create_collection(COLLECTION)
    async for _ in client.ingest(COLLECTION, documents):
        pass
    for query in _queries(documents, 3, 0):
        for mode in MODES:
            await client.search(COLLECTION, query, mode=mode)


async def _block(runner: Runner, mode: SearchMode, queries: Sequence[str], *, depth: int) -> None:
    asked = list(runner.metrics.values())
    if time.monotonic() - runner.asked < _SCRAPE_SECONDS:
        asked = []
    else:
        runner.asked = time.monotonic()
    scraping = asyncio.gather(*(asyncio.to_thread(_scrape, address) for address in asked))
    latencies = []
    computed = processor_seconds(runner.stack.pids)
    for query in queries:
        began = time.perf_counter()
        await runner.client.search(COLLECTION, query, mode=mode, depth=depth if mode is SearchMode.TWO_STAGE else None)
        latencies.append((time.perf_counter() - began) * 1000)
    await scraping
    runner.processor[mode] += processor_seconds(runner.stack.pids) - computed
    runner.latencies[mode].append(latencies)


def _scrape(address: str) -> None:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        answer.read()


def _figures(runner: Runner, plain: Runner) -> dict[str, Any]:
    return {
        "start_seconds": runner.starts,
        "memory_mib_at_rest": runner.at_rest,
        "memory_mib_under_load": memory_mib(runner.stack.pids),
        "search": {
            mode.value: {
                **compared(runner.latencies[mode], plain.latencies[mode] if runner is not plain else None),
                "processor_millis_per_search": round(
                    1000 * runner.processor[mode] / sum(map(len, runner.latencies[mode])), 3
                ),
            }
            for mode in MODES
        },
    }


def _spread(documents: Sequence[Document], count: int) -> list[Document]:
    step = max(1, len(documents) // count)
    return list(documents[::step][:count])


def _queries(documents: Sequence[Document], count: int, turn: int) -> list[str]:
    """As a person might ask for documented things: their titles, others in each round."""
    titles = [document.title for document in documents if document.title.strip()]
    return [titles[(turn * count + position) % len(titles)] for position in range(count)]


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    for name, figures in report["variants"].items():
        starts = ", ".join(f"{service} {seconds} s" for service, seconds in figures["start_seconds"].items())
        console.print(f"{name}: {VARIANTS[name].summary}; start to SERVING: {starts}")
    memory = table("MiB at rest / under load", *SERVICES, right=SERVICES)
    for name, figures in report["variants"].items():
        rest, load = figures["memory_mib_at_rest"], figures["memory_mib_under_load"]
        memory.add_row(name, *(f"{rest.get(service, 0):.0f} / {load.get(service, 0):.0f}" for service in SERVICES))
    console.print(memory)
    columns = ("mode", "n", "p50", "p95", "p50 against plain", "by round", "processor")
    rows = table("search, milliseconds", *columns, right=columns[1:])
    for name, figures in report["variants"].items():
        for mode, search in figures["search"].items():
            spread = search.get("p50_ratio_by_round")
            rows.add_row(
                name,
                mode,
                str(search["searches"]),
                *(f"{search['latency'][cut]:.2f}" for cut in ("p50", "p95")),
                f"{search['p50_ratio'] - 1:+.1%}" if spread else "",
                f"{spread['median'] - 1:+.1%} ({spread['low'] - 1:+.1%} to {spread['high'] - 1:+.1%})"
                if spread
                else "",
                f"{search['processor_millis_per_search']:.2f}",
            )
    console.print(rows)
    costs = ", ".join(f"{name.replace('_', ' ')} {value} ns" for name, value in report["nanoseconds"].items())
    console.print(f"{report['spans_per_search']} spans a traced search; {costs}")


@click.command(epilog="Example: winnow bench operating --variant telemetry --rounds 20")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    type=click.Choice([name for name in VARIANTS if name != PLAIN]),
    default=("telemetry",),
    show_default=True,
    help="What to measure beside the plain stack; may be given several times.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=40, show_default=True, help="Rounds of searches.")
@click.option(
    "--block",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Searches in a row on one stack; of two-stage ones a fifth.",
)
@click.option("--documents", type=click.IntRange(min=10), default=600, show_default=True, help="Documents to ingest.")
@click.option("--depth", type=click.IntRange(min=1), default=50, show_default=True, help="Candidates to rerank.")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where converted models are kept.  [default: as the services choose]",
)
@bench_report.report_options
def operating(
    *,
    variants: tuple[str, ...],
    rounds: int,
    block: int,
    documents: int,
    depth: int,
    cache_dir: Path | None,
    out: Path,
    machine_readable: bool,
) -> None:
    """Measure what running Winnow observed costs: start, memory, and search beside a plain stack."""
    load = Load(documents=documents, rounds=rounds, block=block, depth=depth)

    def measure() -> dict[str, Any]:
        with bench_report.progress() as progress:
            return asyncio.run(bench(load, variants, cache_dir, progress))

    bench_report.report("operating", measure, out=out, machine_readable=machine_readable, show=show)
