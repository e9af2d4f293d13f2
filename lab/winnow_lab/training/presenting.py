"""What a person, or a machine, is told of a finished training."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from winnow_client.cli.output import table
from winnow_lab.training.finishing import Trained
from winnow_lab.training.history import sparkline
from winnow_lab.training.run_folder import RunFolder
from winnow_lab.training.settings import Architecture

SETTINGS = {Architecture.BI_ENCODER: "--model", Architecture.CROSS_ENCODER: "--reranker-model"}
"""The flag of `winnow up` that takes the model."""


def as_json(trained: Trained, architecture: Architecture) -> dict[str, Any]:
    """The whole of it."""
    folder = RunFolder(trained.out)
    history = trained.history
    return {
        "model": str(trained.out),
        "architecture": architecture,
        "examples": trained.examples,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "pairs_per_second": round(trained.pairs_per_second, 1),
        "metric": history.metric or None,
        "first": history.first,
        "best": history.best,
        "last": history.last,
        "history": str(folder.history),
        "curve": str(folder.curve),
    }


def show(trained: Trained, architecture: Architecture, console: Console) -> None:
    """Curves, what was reached, and where the model is."""
    history = trained.history
    if history.losses:
        values = [point.value for point in history.losses]
        console.print(f"loss   {sparkline(values)}  {values[0]:.4f} to {values[-1]:.4f}")
    if history.best is not None and history.last is not None:
        values = [point.value for point in history.metrics]
        console.print(f"metric {sparkline(values)}  {history.metric}")
        rows = table("model", "step", history.metric, right=("step", history.metric))
        if history.first is not None:
            rows.add_row("before training", "0", f"{history.first.value:.4f}")
        rows.add_row("best, kept", f"{history.best.step:,}", f"{history.best.value:.4f}")
        rows.add_row("at the end", f"{history.last.step:,}", f"{history.last.value:.4f}")
        console.print(rows)
        if history.first is not None and history.best.value <= history.first.value:
            console.print("Training made nothing better: the model that it started from is as good on these data.")
    elif history.metrics:
        console.print(f"{history.metric} was never a number, so nothing was chosen by it: the last model is kept.")
    console.print(
        f"{trained.steps:,} steps, {trained.pairs_per_second:,.1f} pairs/s. The model is in {trained.out}; serve it "
        f"with: winnow up {SETTINGS[architecture]} {trained.out}",
        soft_wrap=True,
    )
