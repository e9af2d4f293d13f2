"""`winnow bench path`: the whole path through real processes: start, ingest, and search in both modes, by stage."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import grpc
from rich.console import Console
from rich.progress import Progress

from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_client import AsyncClient, ClientConfig, Document, SearchMode, SearchTiming
from winnow_client.cli.output import table
from winnow_client.cli.processes_stack import EMBEDDER, Stack, StackConfig
from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_client.cli.supervision_log import Entry
from winnow_lab import bench_report
from winnow_lab.bench_figures import percentiles

COLLECTION = "bench"
STAGES = ("embed", "retrieve", "rerank", "gateway")


@dataclass(frozen=True, slots=True)
class Load:
    """What to run."""

    documents: int = 1500
    retrievals: int = 400
    """Searches in RETRIEVE mode per number of clients."""
    two_stage: int = 48
    """Searches in TWO_STAGE mode per number of clients."""
    depth: int = 100
    clients: Sequence[int] = (1, 8)


async def bench(load: Load, progress: Progress) -> dict[str, Any]:
    """Runs everything over a fresh stack; a dict of figures, times in milliseconds unless named otherwise."""
    task = progress.add_task("gather documents", total=None)
    documents = _spread(stdlib_documents(), load.documents)
    progress.update(task, total=1, completed=1)
    with TemporaryDirectory(prefix="winnow-bench-") as folder:
        async with (
            _timed_stack(Path(folder)) as (stack, starts),
            AsyncClient(stack.gateway_address, config=ClientConfig(timeout_seconds=600)) as client,
        ):
            ingest = await _ingest(client, stack, documents, progress)
            search = [
                await _search(client, stack, mode, clients, load, documents, progress)
                for mode in (SearchMode.RETRIEVE, SearchMode.TWO_STAGE)
                for clients in load.clients
            ]
    return {"start_seconds": starts, "ingest": ingest, "search": search}


@asynccontextmanager
async def _timed_stack(folder: Path) -> AsyncIterator[tuple[Stack, dict[str, float]]]:
    began = time.perf_counter()
    starts: dict[str, float] = {}

    def listen(entry: Entry) -> None:
        if entry.event == "serving":
            starts.setdefault(entry.service, round(time.perf_counter() - began, 2))

    config = StackConfig(data=folder, gateway_port=0, index_port=0, embedder_port=0, reranker_port=0)
    async with Stack(config, listener=listen) as stack:
        starts["all"] = round(time.perf_counter() - began, 2)
        yield stack, starts


async def _ingest(
    client: AsyncClient, stack: Stack, documents: Sequence[Document], progress: Progress
) -> dict[str, float]:
    """Ingest's rate; and the embedder's alone on the same texts, which tells its share."""
    await client.create_collection(COLLECTION)
    # One small ingest first, so that no pass is the first of its process.
    async for _ in client.ingest(COLLECTION, documents[:64]):
        pass
    rest = documents[64:]
    task = progress.add_task("ingest", total=len(rest))
    began = time.perf_counter()
    async for _ in client.ingest(COLLECTION, rest):
        progress.advance(task)
    elapsed = time.perf_counter() - began
    task = progress.add_task("embed alone", total=len(rest))
    alone, tokens = await _embed_alone(stack.addresses[EMBEDDER], rest, lambda n: progress.advance(task, n))
    again = time.perf_counter()
    async for _ in client.ingest(COLLECTION, documents):
        pass
    unchanged = time.perf_counter() - again
    return {
        "documents": len(rest),
        "tokens_per_document": round(tokens / len(rest), 1),
        "documents_per_second": round(len(rest) / elapsed, 1),
        "share_spent_embedding": round(alone / elapsed, 3),
        "unchanged_documents_per_second": round(len(documents) / unchanged, 1),
    }


async def _embed_alone(target: str, documents: Sequence[Document], advance: Callable[[int], None]) -> tuple[float, int]:
    """Seconds and tokens to embed the same texts in the same groups straight through the embedder."""
    options = embedder_pb2.EmbedOptions(input_type=embedder_pb2.INPUT_TYPE_PASSAGE, priority=embedder_pb2.PRIORITY_BULK)
    texts = [f"{document.title}\n{document.text}" for document in documents]
    groups = [texts[start : start + 64] for start in range(0, len(texts), 64)]
    tokens = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        waiting = iter(groups)

        async def work() -> None:
            nonlocal tokens
            for group in waiting:
                request = embedder_pb2.EmbedTextsRequest(texts=group, options=options)
                response = await stub.EmbedTexts(request)
                # After the await: the others add to it meanwhile.
                tokens += response.report.token_count
                advance(len(group))

        began = time.perf_counter()
        # As many at once as the gateway keeps in flight.
        await asyncio.gather(*(work() for _ in range(4)))
        return time.perf_counter() - began, tokens


async def _search(
    client: AsyncClient,
    stack: Stack,
    mode: SearchMode,
    clients: int,
    load: Load,
    documents: Sequence[Document],
    progress: Progress,
) -> dict[str, Any]:
    count = load.retrievals if mode is SearchMode.RETRIEVE else load.two_stage
    # The first sentence of a documented thing, as a person might ask for it.
    queries = [document.text.split("\n\n")[-1].split(".")[0][:200] or document.title for document in documents]
    queries = [query for query in queries if query.strip()][:: max(1, len(queries) // count)][:count]
    task = progress.add_task(f"{mode.value}, {clients} at once", total=len(queries))
    latencies: list[float] = []
    timings: list[SearchTiming] = []
    waiting = iter(queries)

    async def work() -> None:
        for query in waiting:
            began = time.perf_counter()
            result = await client.search(COLLECTION, query, mode=mode, depth=load.depth)
            latencies.append((time.perf_counter() - began) * 1000)
            timings.append(result.timing)
            progress.advance(task)

    for query in queries[:3]:
        await client.search(COLLECTION, query, mode=mode, depth=load.depth)
    tokens = await _mean_tokens(stack.addresses[EMBEDDER], queries)
    used = processor_seconds(stack.pids)
    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    elapsed = time.perf_counter() - began
    processor = {name: seconds - used[name] for name, seconds in processor_seconds(stack.pids).items() if name in used}
    return {
        "mode": mode.value,
        "clients": clients,
        "searches": len(latencies),
        "depth": load.depth if mode is SearchMode.TWO_STAGE else 0,
        "searches_per_second": round(len(latencies) / elapsed, 2),
        "query_tokens": tokens,
        "processor_millis": {name: round(1000 * each / len(latencies), 3) for name, each in processor.items()},
        "latency": percentiles(latencies),
        "stages": {
            stage: percentiles([getattr(timing, f"{stage}_micros") / 1000 for timing in timings]) for stage in STAGES
        },
    }


async def _mean_tokens(target: str, queries: Sequence[str]) -> float:
    async with grpc.aio.insecure_channel(target) as channel:
        request = embedder_pb2.CountTokensRequest(texts=queries, input_type=embedder_pb2.INPUT_TYPE_QUERY)
        counts = (await embedder_pb2_grpc.EmbedderServiceStub(channel).CountTokens(request)).token_counts
    return round(sum(counts) / len(counts), 1)


def processor_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds that each process has spent on processors so far, with all its threads. Needs /proc."""
    found: dict[str, float] = {}
    for name, pid in pids.items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # proc(5): fields 14 and 15, in user and in kernel mode; the third is the first after the name.
        found[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _spread(documents: Sequence[Document], count: int) -> list[Document]:
    """At most `count` documents, evenly over all."""
    step = max(1, len(documents) // count)
    return list(documents[::step][:count])


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    starts = ", ".join(f"{name} {seconds} s" for name, seconds in report["start_seconds"].items())
    console.print(f"start to SERVING: {starts}")
    console.print("ingest: " + ", ".join(f"{name} {value}" for name, value in report["ingest"].items()))
    numbers = ("clients", "n", "per second", "latency", *STAGES)
    rows = table("search", *numbers, right=numbers)
    for row in report["search"]:
        cells = [row["latency"], *(row["stages"][stage] for stage in STAGES)]
        rows.add_row(
            f"{row['mode']} {row['depth'] or ''}",
            str(row["clients"]),
            str(row["searches"]),
            str(row["searches_per_second"]),
            *(" / ".join(f"{cell[cut]:.1f}" for cut in ("p50", "p95", "p99")) for cell in cells),
        )
    console.print("search, milliseconds (p50 / p95 / p99)")
    console.print(rows)
    services = tuple(report["search"][0]["processor_millis"])
    spent = table("processor time of a search", "clients", *services, right=("clients", *services))
    for row in report["search"]:
        times = (f"{row['processor_millis'][name]:.1f}" for name in services)
        spent.add_row(f"{row['mode']} {row['depth'] or ''}", str(row["clients"]), *times)
    console.print(spent)


@click.command(epilog="Example: winnow bench path --documents 500 --two-stage 10")
@click.option(
    "--documents",
    type=click.IntRange(min=65),
    default=1500,
    show_default=True,
    help="Documents to ingest; the first 64 warm up.",
)
@click.option(
    "--two-stage",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    help="Two-stage searches per number of clients.",
)
@click.option("--depth", type=click.IntRange(min=1), default=100, show_default=True, help="Candidates to rerank.")
@bench_report.report_options
def path(*, documents: int, two_stage: int, depth: int, out: Path, machine_readable: bool) -> None:
    """Measure the whole path, through four services started here: start, ingest, and search in both modes."""

    def measure() -> dict[str, Any]:
        with bench_report.progress() as progress:
            return asyncio.run(bench(Load(documents=documents, two_stage=two_stage, depth=depth), progress))

    bench_report.report("path", measure, out=out, machine_readable=machine_readable, show=show)
