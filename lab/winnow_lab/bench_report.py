"""What all benchmarks share: the machine they ran on, progress, and keeping what was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from winnow_client.cli import output

PACKAGES = ("torch", "openvino", "sentence-transformers", "qdrant-client", "qdrant-edge-py", "grpcio")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


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
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def progress(*, window_seconds: float = 30.0) -> Progress:
    """Progress bars on standard error; standard output is for the report.

    `window_seconds`: over how much of the past speed is measured, for the time that is left.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Redrawn seldom: what is measured runs on the same cores.
    return Progress(
        *columns,
        console=output.console(stderr=True),
        refresh_per_second=2,
        speed_estimate_period=window_seconds,
    )


def report_options(function: FunctionT) -> FunctionT:
    """Adds --out and --json, as `out` and `machine_readable`."""
    function = click.option(
        "--json", "machine_readable", is_flag=True, help="Write the report to standard output as JSON."
    )(function)
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".winnow/bench"),
        show_default=True,
        help="Folder in which every report is kept as JSON.",
    )(function)


def report(
    part: str,
    measure: Callable[[], dict[str, Any]],
    *,
    out: Path,
    machine_readable: bool,
    show: Callable[[dict[str, Any], Console], None],
) -> None:
    """Measures a part, keeps the report as JSON in `out`, and writes it for people or for machines."""
    began = datetime.now(UTC)
    made: dict[str, Any] = {"date": began.isoformat(timespec="seconds"), "machine": machine(), part: measure()}
    out.mkdir(parents=True, exist_ok=True)
    kept = out / f"{began:%Y%m%dT%H%M%SZ}-{part}.json"
    kept.write_text(json.dumps(output.plain(made), indent=2) + "\n")
    if machine_readable:
        output.emit(made)
    else:
        screen = output.console()
        screen.print("  ".join(f"{key} {value}" for key, value in made["machine"].items()))
        show(made[part], screen)
    output.say(f"kept as {kept}")
