"""`winnow bench index`: ingest, building of the graph, recall, and what the hop costs over calling the engine."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, models
from rich.console import Console
from rich.progress import Progress

from winnow_client.cli.output import table
from winnow_lab import bench_report
from winnow_lab.bench_figures import percentiles

Vectors = npt.NDArray[np.float32]
_NAME = "bench"
_BATCH = 256
_TOP = 10


@dataclass(frozen=True, kw_only=True)
class IndexBenchOptions:
    """What to measure with."""

    points: int = 100_000
    """Vectors in the collection."""
    dimension: int = 384
    """Their dimension."""
    clusters: int = 200
    """Centres that they are drawn around; real embeddings are clustered, and uniform noise would be an unfair test."""
    spread: float = 0.7
    """Standard deviation around a centre, whose own coordinates have 1."""
    queries: int = 1000
    """Queries for latency; a fifth of them is used for recall, which needs exact answers."""
    seed: int = 0
    """Seed of everything random."""


def clustered(options: IndexBenchOptions) -> tuple[Vectors, Vectors]:
    """Vectors to store (points × dimension) and to ask for (queries × dimension), from one distribution."""
    generator = np.random.default_rng(options.seed)
    centres = generator.normal(size=(options.clusters, options.dimension)).astype(np.float32)

    def draw(count: int) -> Vectors:
        noise = generator.normal(size=(count, options.dimension)).astype(np.float32)
        drawn: Vectors = centres[generator.integers(0, options.clusters, count)] + noise * np.float32(options.spread)
        return drawn

    return draw(options.points), draw(options.queries)


class _IndexProcess:
    """winnow-index on a free port."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, "-m", "winnow_index", "--port", "0", "--data-dir", str(data), "--log-format", "json"]
        self._log = (data.parent / "index.log").open("w+")
        self._process = subprocess.Popen(command, stderr=self._log)
        self.port = self._await_port(data.parent / "index.log")

    def _await_port(self, log: Path) -> int:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            for line in log.read_text().splitlines():
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("event") == "listening":
                    return int(event["address"].rsplit(":", 1)[1])
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"the index did not start: {log.read_text()[-500:]}")

    def stop(self) -> None:
        """Ends it in order."""
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()


async def _ingest(client: AsyncQdrantClient, vectors: Vectors, advance: Callable[[int], None]) -> float:
    """Writes everything, two batches in flight; points per second."""
    starts = iter(range(0, len(vectors), _BATCH))
    began = time.perf_counter()

    async def worker() -> None:
        for start in starts:
            rows = vectors[start : start + _BATCH]
            points = [
                models.PointStruct(
                    id=start + n, vector={"dense": row.tolist()}, payload={"document": f"d{(start + n) // 4}"}
                )
                for n, row in enumerate(rows)
            ]
            await client.upsert(_NAME, points, wait=True)
            advance(len(rows))

    await asyncio.gather(worker(), worker())
    return len(vectors) / (time.perf_counter() - began)


async def _build(client: AsyncQdrantClient, queries: Vectors) -> dict[str, Any]:
    """Lets the graph be built, reading and writing all the while."""
    chooser = random.Random(1)
    done = asyncio.Event()
    waits: dict[str, list[float]] = {"read": [], "write": []}

    async def repeat(kind: str, pause: float, call: Callable[[], Awaitable[Any]]) -> None:
        while not done.is_set():
            began = time.perf_counter()
            await call()
            waits[kind].append(time.perf_counter() - began)
            await asyncio.sleep(pause)

    def read() -> Awaitable[Any]:
        return client.query_points(_NAME, query=chooser.choice(queries).tolist(), using="dense", limit=_TOP)

    def write() -> Awaitable[Any]:
        vector = {"dense": chooser.choice(queries).tolist()}
        point = models.PointStruct(id=chooser.randrange(1000), vector=vector, payload={"document": "d0"})
        return client.upsert(_NAME, [point], wait=True)

    began = time.perf_counter()
    await client.update_collection(_NAME, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10_000))
    tasks = [asyncio.create_task(repeat("read", 0.01, read)), asyncio.create_task(repeat("write", 0.05, write))]
    while (await client.get_collection(_NAME)).status != models.CollectionStatus.GREEN:  # noqa: ASYNC110 - a process
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - began
    done.set()
    await asyncio.gather(*tasks)
    return {
        "seconds": round(seconds, 1),
        "read": _latencies(waits["read"]),
        "write": _latencies(waits["write"]),
        "reads": len(waits["read"]),
        "writes": len(waits["write"]),
    }


def _latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    return percentiles([each * 1000 for each in seconds])


async def _recall(client: AsyncQdrantClient, queries: Vectors) -> float:
    """Share of the exact ten best that the default search finds."""
    found = 0
    for row in queries:
        ask: dict[str, Any] = {"query": row.tolist(), "using": "dense", "limit": _TOP}
        exact = await client.query_points(_NAME, search_params=models.SearchParams(exact=True), **ask)
        given = await client.query_points(_NAME, **ask)
        found += len({p.id for p in exact.points} & {p.id for p in given.points})
    return found / (_TOP * len(queries))


async def _through_the_hop(client: AsyncQdrantClient, queries: Vectors, limit: int) -> list[float]:
    seconds = []
    for row in queries:
        vector = row.tolist()
        began = time.perf_counter()
        await client.query_points(_NAME, query=vector, using="dense", limit=limit, with_payload=True)
        seconds.append(time.perf_counter() - began)
    return seconds


def _direct(data: Path, queries: Vectors, limit: int) -> list[float]:
    """The same queries on the same files, without the service."""
    [current] = data.glob("collections/*/CURRENT")
    shard = edge.EdgeShard.load(str(current.parent / current.read_text().strip()))
    seconds = []
    try:
        for row in queries:
            vector = row.tolist()
            began = time.perf_counter()
            shard.query(
                edge.QueryRequest(query=edge.Query.Nearest(vector, using="dense"), limit=limit, with_payload=True)
            )
            seconds.append(time.perf_counter() - began)
    finally:
        shard.close()
    return seconds


async def _measure(data: Path, options: IndexBenchOptions, progress: Progress) -> dict[str, Any]:
    vectors, queries = clustered(options)
    index = _IndexProcess(data)
    client = AsyncQdrantClient(
        host="127.0.0.1", grpc_port=index.port, prefer_grpc=True, check_compatibility=False, timeout=120
    )
    results: dict[str, Any] = {"points": options.points, "dimension": options.dimension, "seed": options.seed}
    try:
        await client.create_collection(
            _NAME,
            vectors_config={"dense": models.VectorParams(size=options.dimension, distance=models.Distance.COSINE)},
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
        )
        await client.create_payload_index(_NAME, "document", models.PayloadSchemaType.KEYWORD, wait=True)
        task = progress.add_task("ingest", total=options.points)
        rate = await _ingest(client, vectors, lambda count: progress.advance(task, count))
        results["ingest_points_per_second"] = round(rate)
        task = progress.add_task("build the graph while reading and writing", total=None)
        results["build"] = await _build(client, queries)
        progress.update(task, total=1, completed=1)
        task = progress.add_task("recall and latency", total=4)
        results["recall_at_10"] = round(await _recall(client, queries[: max(1, options.queries // 5)]), 4)
        progress.advance(task)
        hop = {limit: await _through_the_hop(client, queries, limit) for limit in (_TOP, 100)}
        progress.advance(task, 2)
    finally:
        await client.close()
        index.stop()
    results["query"] = {}
    for limit, seconds in hop.items():
        through, direct = _latencies(seconds), _latencies(_direct(data, queries, limit))
        results["query"][f"limit_{limit}"] = {
            "through_the_hop": through,
            "direct": direct,
            "overhead_p50": round(through["p50"] - direct["p50"], 3),
        }
    progress.advance(task)
    return results


def show(results: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    rows = table("measure", "value", right=("value",))

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix} {key}".strip(), inner)
        else:
            rows.add_row(prefix.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))

    add("", {key: value for key, value in results.items() if key not in ("points", "dimension")})
    console.print(f"index, {results['points']:,} × {results['dimension']}; latencies in milliseconds")
    console.print(rows)


@click.command(epilog="Example: winnow bench index --points 20000")
@click.option("--points", type=click.IntRange(min=1), default=100_000, show_default=True, help="Vectors to store.")
@click.option("--dimension", type=click.IntRange(min=1), default=384, show_default=True, help="Components of each.")
@click.option("--queries", type=click.IntRange(min=1), default=1000, show_default=True, help="Queries for latency.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@bench_report.report_options
def index(*, points: int, dimension: int, queries: int, seed: int, out: Path, machine_readable: bool) -> None:
    """Measure the index alone, fresh and in a temporary directory: ingest, building, recall and latency."""
    options = IndexBenchOptions(points=points, dimension=dimension, queries=queries, seed=seed)

    def measure() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder, bench_report.progress() as progress:
            return asyncio.run(_measure(Path(folder) / "data", options, progress))

    bench_report.report("index", measure, out=out, machine_readable=machine_readable, show=show)
