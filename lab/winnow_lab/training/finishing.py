"""Keeps what came of a training: the model, its card, the history and its picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from winnow_lab.training.curve import draw_curve
from winnow_lab.training.history import History, Point
from winnow_lab.training.run_folder import RunFolder, write_json
from winnow_lab.training.settings import Architecture, TrainingSettings, WeightFormat
from winnow_lab.training.storing import write_model


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training."""

    out: Path
    """The model's folder: point a service at it."""
    history: History
    """How it went."""
    examples: int
    """Rows of the loss: pairs, triplets or groups."""
    steps: int
    """Optimizer steps that were made, those before a kill included."""
    seconds: float
    """Of the last call: less than of the whole training, if it was resumed."""
    pairs_per_second: float
    """Pairs of texts that were trained on a second, in the last call."""


def keep(
    folder: RunFolder,
    model: Any,
    trained: Trained,
    *,
    architecture: Architecture,
    settings: TrainingSettings,
    source: str,
    weights: WeightFormat,
) -> None:
    """Writes everything; the history last, for it says that the run is finished."""
    made = folder.training / "model"
    write_model(model, made, weights)
    (made / "README.md").write_text(card(trained, architecture=architecture, settings=settings, source=source))
    draw_curve(trained.history, folder.curve, title=trained.out.name)
    folder.place_model(made)
    write_json(folder.history, {**asdict(trained), "out": None, "source": source})
    folder.close()


def read_trained(folder: RunFolder) -> Trained:
    """What `keep` wrote."""
    stored = json.loads(folder.history.read_text(encoding="utf-8"))
    history = stored["history"]
    return Trained(
        out=folder.out,
        history=History(
            metric=history["metric"],
            metrics=_points(history["metrics"]),
            losses=_points(history["losses"]),
            evaluations=history["evaluations"],
        ),
        **{name: stored[name] for name in ("examples", "steps", "seconds", "pairs_per_second")},
    )


def _points(stored: Sequence[dict[str, Any]]) -> list[Point]:
    return [Point(**point) for point in stored]


def card(trained: Trained, *, architecture: Architecture, settings: TrainingSettings, source: str) -> str:
    """A model card in Markdown: what it is, what it learned from, what was measured."""
    history = trained.history
    lines = [
        "---",
        "library_name: sentence-transformers",
        f"pipeline_tag: {'sentence-similarity' if architecture is Architecture.BI_ENCODER else 'text-ranking'}",
        "---",
        f"# {trained.out.name}",
        "",
        f"A {architecture} trained with `winnow train {architecture}`: {trained.steps:,} steps of "
        f"{settings.batch_size} examples, {trained.examples:,} examples in all{f', from {source}' if source else ''}.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in asdict(settings).items()),
        "",
    ]
    if history.best is not None and history.last is not None:
        lines += [f"| {history.metric} | step | value |", "|---|---|---|"]
        if history.first is not None:
            lines.append(f"| before training | 0 | {history.first.value:.4f} |")
        lines += [
            f"| best, which is this model | {history.best.step} | {history.best.value:.4f} |",
            f"| at the end | {history.last.step} | {history.last.value:.4f} |",
            "",
            "These were measured on what training looked at to choose the model: measure again on other data.",
            "",
        ]
    return "\n".join(lines)
