"""Shows on standard error how a training goes on: a bar with the time left, or a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from winnow_client.cli.output import console, say
from winnow_lab.training.history import METRIC

_LINE_SECONDS = 20.0


class Progress(TrainerCallback):
    """A callback of the trainer; silent in every process but the first."""

    def __init__(self, description: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._description = description
        self._began = time.monotonic()
        self._began_at = 0
        self._said = time.monotonic()
        self._loss = ""
        self._metric = ""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Bar(*columns, console=console(stderr=True), refresh_per_second=2, transient=True)
        self._task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begins to show, from where a resumed training goes on."""
        self._began, self._began_at = time.monotonic(), state.global_step
        if not state.is_world_process_zero:
            return
        if state.global_step:
            say(f"going on from step {state.global_step:,} of {state.max_steps:,}")
        if sys.stderr.isatty():
            self._task = self._bar.add_task(
                self._description, total=state.max_steps, completed=state.global_step, now=""
            )
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step is done."""
        if not state.is_world_process_zero:
            return
        if self._task is not None:
            self._bar.update(self._task, completed=state.global_step, now=self._now())
        elif time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            say(f"step {state.global_step:,} of {state.max_steps:,}  {self._now()}  {self._left(state)}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """The trainer says what the loss is."""
        if logs and "loss" in logs:
            self._loss = f"loss {logs['loss']:.4f}"

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """An evaluation is done."""
        metrics: Mapping[str, float] = given["metrics"]
        if f"eval_{METRIC}" not in metrics or not state.is_world_process_zero:
            return
        self._metric = f"metric {metrics[f'eval_{METRIC}']:.4f}"
        if self._task is None:
            say(f"step {state.global_step:,}: {self._metric}")

    def stop(self) -> None:
        """Takes the bar away; also after a failure."""
        if self._task is not None:
            self._bar.stop()
            self._task = None

    def _now(self) -> str:
        return "  ".join(filter(None, (self._loss, self._metric)))

    def _left(self, state: Any) -> str:
        done = state.global_step - self._began_at
        seconds = (time.monotonic() - self._began) / max(1, done) * (state.max_steps - state.global_step)
        return f"{seconds / 60:.0f} min left" if seconds >= 120 else f"{seconds:.0f} s left"
