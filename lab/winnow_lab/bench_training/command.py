"""`winnow bench training`: pairs a second of `winnow train` against the plain sentence-transformers script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from winnow_client.cli.output import table
from winnow_lab import bench_report
from winnow_lab.bench_figures import range_of, turns
from winnow_lab.training.settings import Architecture

CONTESTANTS = ("winnow", "plain script")
"""Both minimise the same loss with the same batch on the same examples."""

_SECONDS = 3600


def compare(turns_taken: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Pairs a second of each contestant by the median round, with their range, and ours over the script's, round by
    round."""
    made: dict[str, Any] = {}
    for name, rounds in turns_taken.items():
        speeds = range_of([each["pairs"] / each["seconds"] for each in rounds])
        made[name] = {
            "pairs_per_second": round(speeds.median, 2),
            "low": round(speeds.low, 2),
            "high": round(speeds.high, 2),
            "loss": round(rounds[-1]["loss"], 4),
        }
    ours, theirs = (turns_taken[name] for name in CONTESTANTS)
    ratios = range_of([b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)])
    return {
        **made,
        "ratio": round(ratios.median, 3),
        "ratio_low": round(ratios.low, 3),
        "ratio_high": round(ratios.high, 3),
    }


def show(results: dict[str, Any], console: Console) -> None:
    """The report for a person."""
    for architecture, measured in results["models"].items():
        rows = table(architecture, "pairs/s", "range", "mean loss", right=("pairs/s", "range", "mean loss"))
        for name in CONTESTANTS:
            of = measured[name]
            rows.add_row(
                name, f"{of['pairs_per_second']:.1f}", f"{of['low']:.1f} – {of['high']:.1f}", f"{of['loss']:.4f}"
            )
        console.print(rows)
        low, high = measured["ratio_low"], measured["ratio_high"]
        console.print(f"winnow / plain script: {measured['ratio']:.2f} ({low:.2f} – {high:.2f})\n")


@click.command(epilog="Example: winnow bench training --only cross-encoder --bf16")
@click.option("--only", type=click.Choice([each.value for each in Architecture]), help="Measure one model alone.")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
    help="File of groups (query, documents, labels).  [default: paragraphs that Python carries]",
)
@click.option("--documents", type=click.IntRange(min=2), default=6, show_default=True, help="Documents of a group.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Groups of one step.")
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True, help="Steps of one turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of each contestant.")
@click.option("--bf16", is_flag=True, help="Let both compute in bfloat16.")
@bench_report.report_options
def training(
    *, only: str | None, data: str | None, documents: int, batch: int, steps: int, rounds: int, bf16: bool, out: Path,
    machine_readable: bool,
) -> None:  # fmt: skip
    """Measure training against the 20 lines that one would write with sentence-transformers.

    Contestants take turns in processes of their own, with the same loss, batch and examples; what is timed is the
    training and the checkpoint at its end.
    """
    chosen = [Architecture(only)] if only else list(Architecture)
    options = {"documents": documents, "batch_size": batch, "steps": steps, "bf16": bf16, "data": data or ""}

    def measure() -> dict[str, Any]:
        with bench_report.progress() as progress:
            task = progress.add_task("train", total=len(chosen) * rounds * len(CONTESTANTS))
            models = {}
            for architecture in chosen:
                taken: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
                for number in range(rounds):
                    for at in turns(len(CONTESTANTS), number):
                        progress.update(task, description=f"{architecture}, round {number + 1}: {CONTESTANTS[at]}")
                        taken[CONTESTANTS[at]].append(_turn(CONTESTANTS[at], architecture, options))
                        progress.advance(task)
                models[architecture.value] = compare(taken)
        return {**options, "rounds": rounds, "models": models}

    bench_report.report("training", measure, out=out, machine_readable=machine_readable, show=show)


def _turn(contestant: str, architecture: Architecture, options: dict[str, Any]) -> dict[str, Any]:
    from winnow_lab.training.jobs import locate_model

    start = str(locate_model(architecture, ""))
    asked = {"contestant": contestant, "architecture": architecture, "start": start, **options}
    command = [sys.executable, "-m", "winnow_lab.bench_training.worker", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise click.ClickException(f"{contestant} failed: {' '.join(done.stderr.split())[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
