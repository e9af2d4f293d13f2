"""The curve of a training as a picture."""

from __future__ import annotations

from pathlib import Path

from winnow_lab.training.history import History


def draw_curve(history: History, path: Path, *, title: str) -> None:
    """Writes a PNG: the loss above, the metric below, over optimizer steps."""
    # Without a screen, and without what the user's own settings would make of it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title)
    upper.plot([each.step for each in history.losses], [each.value for each in history.losses], color="tab:gray")
    upper.set_ylabel("training loss")
    lower.plot([each.step for each in history.metrics], [each.value for each in history.metrics], marker="o")
    if history.best is not None:
        lower.axvline(history.best.step, color="tab:green", linestyle=":", label=f"kept: step {history.best.step}")
        lower.legend()
    lower.set_ylabel(history.metric or "nothing was evaluated")
    lower.set_xlabel("optimizer step")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
