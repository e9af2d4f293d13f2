"""`make bench`: every benchmark in one go, with the machine it ran on, printed and kept as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from winnow_lab import bench_index, bench_search
from winnow_rpc.faults import Fault

PACKAGES = ("torch", "sentence-transformers", "qdrant-client", "qdrant-edge-py", "grpcio")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def show(report: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    console.print("  ".join(f"{key} {value}" for key, value in report["machine"].items()), highlight=False)
    if "path" in report:
        path = report["path"]
        console.print("start to SERVING, seconds: ", path["start_seconds"])
        console.print("ingest: ", path["ingest"])
        table = Table(title="search, milliseconds (p50 / p95 / p99)")
        for column in ("mode", "clients", "n", "per second", "latency", *bench_search.STAGES):
            table.add_column(column, justify="right")
        for row in path["search"]:
            cells = [row["latency"], *(row["stages"][stage] for stage in bench_search.STAGES)]
            table.add_row(
                f"{row['mode']} {row['depth'] or ''}",
                str(row["clients"]),
                str(row["searches"]),
                str(row["searches_per_second"]),
                *(" / ".join(f"{value:.1f}" for value in cell.values()) for cell in cells),
            )
        console.print(table)
    if "index" in report:
        console.print("index: ", report["index"])


@click.command()
@click.option("--only", type=click.Choice(["path", "index"]), help="Run one part alone.")
@click.option("--documents", default=1500, show_default=True, help="Documents to ingest for the whole path.")
@click.option("--two-stage", default=48, show_default=True, help="Two-stage searches per number of clients.")
@click.option("--depth", default=100, show_default=True, help="Candidates to rerank.")
@click.option("--points", default=100_000, show_default=True, help="Vectors for the index alone.")
@click.option(
    "--out", default=".winnow/bench", show_default=True, type=click.Path(path_type=Path), help="Where to keep it."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def main(only: str | None, documents: int, two_stage: int, depth: int, points: int, out: Path, as_json: bool) -> None:
    """Measures start, ingest, search and the index, and keeps the figures.

    Example: python -m winnow_lab.bench --only path --documents 500
    """
    console = Console(stderr=as_json)
    began = datetime.now(UTC)
    report: dict[str, Any] = {"date": began.isoformat(timespec="seconds"), "machine": machine()}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        if only != "index":
            load = bench_search.Load(documents=documents, two_stage=two_stage, depth=depth)
            with Progress(*columns, console=Console(stderr=True)) as progress:
                report["path"] = asyncio.run(bench_search.bench(load, progress))
        if only != "path":
            options = bench_index.IndexBenchOptions(points=points)
            report["index"] = bench_index.bench_index(options, console=Console(stderr=True))
    except Fault as fault:
        click.echo(fault.message, err=True)
        sys.exit(1)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / f"{began:%Y%m%dT%H%M%SZ}.json"
    kept.write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(report))
    else:
        show(report, console)
    click.echo(f"kept as {kept}", err=True)


if __name__ == "__main__":
    main()
