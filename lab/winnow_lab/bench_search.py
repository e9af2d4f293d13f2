"""What a search is worth in the time it has: budgets against a fixed depth without any, on a judged set.

Every query is searched under every budget, in an order drawn anew for each, so that all of them meet the same machine;
and by the same pipeline with a fixed depth and no budget beside them. Latency is what the client waits.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from winnow_client import AsyncClient, ClientConfig, Document, SearchMode
from winnow_client.cli.durations import DurationType
from winnow_client.cli.output import console, table
from winnow_client.cli.processes_stack import Stack, StackConfig
from winnow_lab.bench_report import machine
from winnow_lab.data.beir import JudgedQuery, read_documents, read_queries
from winnow_relevance import ndcg
from winnow_rpc.faults import AlreadyExists, DeadlineExceeded, Fault, ResourceExhausted

BUDGETS = "50ms,100ms,200ms,400ms,800ms,none"
GRACE_SECONDS = 0.020
"""An answer counts as inside its budget up to this much after it: what it takes to get back to the client."""
DEADLINE_SECONDS = 60.0
"""Of every call, whatever its budget."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a search is asked for."""

    name: str
    budget: float | None = None
    """Seconds; None: no budget."""
    fixed_depth: int | None = None
    """In two stages with this depth; None: as the gateway chooses."""


@dataclass(slots=True)
class Seen:
    """What searches under one setting came to."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, of those that were answered."""
    ndcg: list[float] = field(default_factory=list)
    """nDCG@10 of each query; 0 for one that failed."""
    depths: list[int] = field(default_factory=list)
    deadline_exceeded: int = 0
    refusals: list[float] = field(default_factory=list)
    """Seconds until a search was refused because too much was in hand."""
    failed: int = 0
    """Searches that failed otherwise."""
    degradations: dict[str, int] = field(default_factory=dict)
    """Kind and reason → answers that had it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting's figures."""

    setting: str
    budget_millis: float | None
    searches: int
    inside: float | None
    """Share of all searches that were not refused that were answered inside budget + GRACE_SECONDS."""
    deadline_exceeded: int
    refused: int
    refusal_p99_millis: float | None
    failed: int
    ndcg_at_10: float
    ndcg_standard_error: float
    median_depth: float
    p50_millis: float
    p99_millis: float
    degradations: dict[str, int]


def summarize(setting: Setting, seen: Seen) -> Row:
    """The figures of what was seen. Percentiles by the nearest rank, so that each is a value that was measured."""
    count = len(seen.ndcg)
    inside = None
    if setting.budget is not None and count:
        inside = sum(latency <= setting.budget + GRACE_SECONDS for latency in seen.latencies) / count
    cuts = np.percentile(seen.latencies or [np.nan], [50, 99], method="inverted_cdf") * 1000
    refusal = np.percentile(seen.refusals, 99, method="inverted_cdf") * 1000 if seen.refusals else None
    return Row(
        setting=setting.name,
        budget_millis=None if setting.budget is None else setting.budget * 1000,
        searches=count + len(seen.refusals),
        inside=inside,
        deadline_exceeded=seen.deadline_exceeded,
        refused=len(seen.refusals),
        refusal_p99_millis=None if refusal is None else round(float(refusal), 2),
        failed=seen.failed,
        ndcg_at_10=float(np.mean(seen.ndcg or [np.nan])),
        ndcg_standard_error=float(np.std(seen.ndcg or [np.nan]) / np.sqrt(max(1, count))),
        median_depth=float(np.median(seen.depths)) if seen.depths else 0.0,
        p50_millis=round(float(cuts[0]), 1),
        p99_millis=round(float(cuts[1]), 1),
        degradations=dict(sorted(seen.degradations.items())),
    )


async def search_once(client: AsyncClient, collection: str, query: JudgedQuery, setting: Setting, seen: Seen) -> None:
    """One search, and what is to be known of it."""
    began = time.perf_counter()
    try:
        result = await client.search(
            collection,
            query.text,
            mode=SearchMode.AUTO if setting.fixed_depth is None else SearchMode.TWO_STAGE,
            depth=setting.fixed_depth,
            budget=setting.budget,
            timeout=DEADLINE_SECONDS,
        )
    except ResourceExhausted:
        seen.refusals.append(time.perf_counter() - began)
        return
    except Fault as fault:
        seen.deadline_exceeded += isinstance(fault, DeadlineExceeded)
        seen.failed += not isinstance(fault, DeadlineExceeded)
        seen.ndcg.append(0.0)
        return
    seen.latencies.append(time.perf_counter() - began)
    seen.ndcg.append(ndcg([hit.document.id for hit in result.hits], query.judgements, k=10))
    seen.depths.append(result.reranked_count)
    for degradation in result.degradations:
        name = f"{degradation.kind.value} {degradation.reason}"
        seen.degradations[name] = seen.degradations.get(name, 0) + 1


async def measure(
    client: AsyncClient,
    collection: str,
    queries: Sequence[JudgedQuery],
    settings: Sequence[Setting],
    *,
    clients: int,
    rate: float,
    warm_up: int,
    progress: Progress,
) -> list[Row]:
    """Searches for every query under every setting: `clients` at a time, or, with a `rate`, so many a second begin."""
    for query in queries[:warm_up]:
        await search_once(client, collection, query, settings[-1], Seen())
    chance = random.Random(0)
    seen = {setting: Seen() for setting in settings}
    waiting = iter([(query, setting) for query in queries for setting in chance.sample(settings, len(settings))])
    task = progress.add_task("search", total=len(queries) * len(settings))

    async def one(query: JudgedQuery, setting: Setting) -> None:
        await search_once(client, collection, query, setting, seen[setting])
        progress.advance(task)

    async def work() -> None:
        for query, setting in waiting:
            await one(query, setting)

    if rate:
        async with asyncio.TaskGroup() as group:
            for query, setting in waiting:
                group.create_task(one(query, setting))
                await asyncio.sleep(chance.expovariate(rate))
    else:
        await asyncio.gather(*(work() for _ in range(clients)))
    return [summarize(setting, each) for setting, each in seen.items()]


async def fill(client: AsyncClient, collection: str, documents: Sequence[Document], progress: Progress) -> None:
    """Ingests, unless it is there already."""
    try:
        await client.create_collection(collection)
    except AlreadyExists:
        progress.console.print(f"collection {collection} is there already: only what changed is embedded")
    task = progress.add_task("ingest", total=len(documents))
    async for acknowledged in client.ingest(collection, documents):
        if acknowledged.refusal:
            progress.console.print(f"{acknowledged.id} refused: {acknowledged.refusal.message}")
        progress.advance(task)


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """The curve: quality by the time that half of the answers took, budgets joined, fixed depths beside them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for fixed, style, label in ((False, "o-", "budgets"), (True, "s--", "fixed depth, no budget")):
        chosen = sorted((row for row in rows if (row.setting.startswith("depth")) is fixed), key=lambda r: r.p50_millis)
        axes.errorbar(
            [row.p50_millis for row in chosen],
            [row.ndcg_at_10 for row in chosen],
            yerr=[row.ndcg_standard_error for row in chosen],
            fmt=style,
            capsize=2,
            linewidth=1,
            label=label,
        )
        for row in chosen:
            # Without a budget it is often where the longest one is.
            offset = (5, -14 if fixed or row.budget_millis is None else 6)
            axes.annotate(row.setting, (row.p50_millis, row.ndcg_at_10), xytext=offset, textcoords="offset points")
    axes.set_xscale("log")
    ticks = [25 * 2**power for power in range(12)]
    low, high = min(row.p50_millis for row in rows), max(row.p50_millis for row in rows)
    shown = [tick for tick in ticks if low / 2 <= tick <= high * 2]
    axes.set_xticks(shown, labels=[str(tick) for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("latency, median, milliseconds")
    axes.set_ylabel("nDCG@10")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def show(rows: Sequence[Row], *, title: str) -> Table:
    """The figures for a person."""
    columns = ("inside", "exceeded", "refused", "in ms", "failed", "nDCG@10", "s.e.", "depth", "p50", "p99 ms")
    figures = table("setting", *columns, right=columns)
    figures.title = title
    for row in rows:
        figures.add_row(
            row.setting,
            "" if row.inside is None else f"{row.inside:.1%}",
            str(row.deadline_exceeded),
            str(row.refused),
            "" if row.refusal_p99_millis is None else f"{row.refusal_p99_millis:.1f}",
            str(row.failed),
            f"{row.ndcg_at_10:.3f}",
            f"{row.ndcg_standard_error:.3f}",
            f"{row.median_depth:.0f}",
            f"{row.p50_millis:.0f}",
            f"{row.p99_millis:.0f}",
        )
    return figures


def settings_of(budgets: str, fixed_depths: str) -> list[Setting]:
    """The settings that the options name. Raises click.BadParameter for what is no time or no depth."""
    made = []
    for written in (part.strip() for part in budgets.split(",")):
        seconds = None if written == "none" else DurationType().convert(written, None, None)
        made.append(Setting("none" if seconds is None else written, budget=seconds))
    for part in filter(None, fixed_depths.split(",")):
        try:
            made.append(Setting(f"depth {int(part)}", fixed_depth=int(part)))
        except ValueError as error:
            raise click.BadParameter(f"{part!r} is no depth") from error
    return made


def sample(
    folder: Path, *, split: str, queries: int, documents: int, prefix: str
) -> tuple[list[JudgedQuery], list[Document]]:
    """The same queries on every run, and the documents: those that they are judged by, then others up to so many."""
    judged = read_queries(folder, split)
    chosen = sorted(random.Random(0).sample(judged, min(queries, len(judged))), key=lambda query: query.id)
    named = {id_ for query in chosen for id_ in query.judgements}
    every = [document for document in read_documents(folder) if document.id.startswith(prefix)]
    every.sort(key=lambda document: document.id not in named)
    return chosen, every[:documents] if documents else every


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="test", show_default=True, help="Which judgements to use: qrels/SPLIT.tsv.")
@click.option("--queries", default=100, show_default=True, help="How many queries to draw, the same ones each time.")
@click.option("--documents", default=0, help="How many documents to index.  [default: all]")
@click.option("--prefix", default="", help="Take only documents whose id begins with this.")
@click.option("--budgets", default=BUDGETS, show_default=True, help="Budgets to search under.")
@click.option("--fixed-depths", default="10,20,50,100", show_default=True, help="Depths to search with, unbudgeted.")
@click.option("--clients", default=1, show_default=True, help="Searches at a time.")
@click.option("--rate", default=0.0, help="Searches that begin a second, whatever becomes of the earlier ones.")
@click.option("--warm-up", default=20, show_default=True, help="Searches before the measured ones.")
@click.option("--gateway", help="Use the gateway at HOST:PORT. Without it, the services are started here.")
@click.option("--data", default=".winnow/deadlines", show_default=True, help="Where services started here keep data.")
@click.option("--out", default=".winnow/bench", show_default=True, type=click.Path(path_type=Path), help="Results.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def search(
    folder: Path,
    split: str,
    queries: int,
    documents: int,
    prefix: str,
    budgets: str,
    fixed_depths: str,
    clients: int,
    rate: float,
    warm_up: int,
    gateway: str | None,
    data: str,
    out: Path,
    as_json: bool,
) -> None:
    """Measures what searches are worth under budgets, on a judged set in the BEIR layout.

    Example: winnow bench search path/to/squad --queries 100 --prefix test-
    """
    settings = settings_of(budgets, fixed_depths)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console(stderr=True))

    async def report_on(target: str) -> dict[str, Any]:
        chosen, every = sample(folder, split=split, queries=queries, documents=documents, prefix=prefix)
        async with AsyncClient(target, config=ClientConfig(timeout_seconds=600)) as client:
            with progress:
                await fill(client, folder.name, every, progress)
                rows = await measure(
                    client,
                    folder.name,
                    chosen,
                    settings,
                    clients=clients,
                    rate=rate,
                    warm_up=warm_up,
                    progress=progress,
                )
        return {
            "machine": machine(),
            "set": folder.name,
            "split": split,
            "documents": len(every),
            "queries": len(chosen),
            "clients": clients,
            "rate": rate,
            "rows": [asdict(row) for row in rows],
        }

    async def run() -> dict[str, Any]:
        if gateway:
            return await report_on(gateway)
        config = StackConfig(data=Path(data), gateway_port=0, index_port=0, embedder_port=0, reranker_port=0)
        async with Stack(config) as stack:
            return await report_on(stack.gateway_address)

    try:
        report = asyncio.run(run())
    except Fault as fault:
        click.echo(fault.message, err=True)
        sys.exit(1)
    keep(report, out, as_json=as_json)


def keep(report: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Writes the report as JSON and as a curve, and prints it."""
    rows = [Row(**row) for row in report["rows"]]
    title = f"{report['set']} {report['split']}: {report['queries']} queries, {report['documents']} documents"
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"deadlines-{report['set']}-{report['split']}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    draw(rows, path.with_suffix(".png"), title=title)
    if as_json:
        click.echo(json.dumps(report))
    else:
        console().print(show(rows, title=title))
    click.echo(f"kept as {path} and {path.with_suffix('.png').name}", err=True)
