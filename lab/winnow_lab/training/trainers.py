"""sentence-transformers' trainers, with what a long training on a user's own machine needs beside them.

Checkpoints are whole or not there, a loss that is no number stops at once, the metric that decides is found by name.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoderTrainer, SentenceTransformerTrainer

from winnow_lab.training.history import METRIC, resolve_metric
from winnow_lab.training.run_folder import RunFolder
from winnow_rpc.faults import FailedPrecondition, InvalidArgument, ResourceExhausted


class _Careful:
    """Goes before a trainer of sentence-transformers; `folder` and `wanted_metric` are set after construction."""

    folder: RunFolder
    wanted_metric: str
    args: Any
    state: Any
    accelerator: Any
    model: Any
    _last_loss: Any = math.nan

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the card is ours, and theirs looks through all the data first."""

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        """Keeps the loss, for the message if the gradient is no number."""
        loss: torch.Tensor = super().training_step(*args, **options)  # type: ignore[misc]
        self._last_loss = loss
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[misc]
        # Here, because gradients are averaged over processes: all of them see it, before the weights are touched.
        if not math.isfinite(float(norm)):
            raise self._diverged()
        return norm

    def _diverged(self) -> FailedPrecondition:
        step = self.state.global_step + 1
        reached = self.state.best_model_checkpoint or next(reversed(self.folder.whole()), None)
        kept = f"What was reached before is in {reached}." if reached else "There was no checkpoint yet."
        bf16 = " or compute without --bf16" if self.args.bf16 else ""
        return FailedPrecondition(
            f"the training came apart at step {step}: the loss is {float(self._last_loss):g} and its gradient is not a "
            f"finite number. Begin anew (--overwrite) with a lower --learning-rate than {self.args.learning_rate:g}"
            f"{bf16}. {kept}",
            reason="TRAINING_DIVERGED",
        )

    def evaluation_loop(self, *args: Any, **options: Any) -> Any:
        """Adds the metric that decides, under a name that does not depend on the evaluator."""
        output = super().evaluation_loop(*args, **options)  # type: ignore[misc]
        names = [name.removeprefix("eval_") for name in output.metrics]
        name = resolve_metric(self.wanted_metric, names)
        if name is None:
            raise InvalidArgument(
                f"there is no metric {self.wanted_metric!r}, or several end in it; there are {', '.join(names)}",
                field="metric",
            )
        output.metrics[f"eval_{METRIC}"] = output.metrics[f"eval_{name}"]
        return output

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(output_dir, create_model_card=False)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoint = self.folder.checkpoints / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            # Every process writes the state of its own random numbers.
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.folder.complete(checkpoint, step=self.state.global_step)
        except Exception as error:  # each library on the way has its own way to say that a disk is full
            if self.args.should_save:
                with contextlib.suppress(OSError):
                    shutil.rmtree(checkpoint)
            raise self._unsaved(error) from error
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            self.folder.prune([checkpoint, *([Path(best)] if best else [])])

    def _unsaved(self, error: Exception) -> ResourceExhausted:
        whole = self.folder.whole()
        earlier = f"{whole[-1]} is whole, and the training goes on from there" if whole else "There is no earlier one"
        free = shutil.disk_usage(self.folder.out).free / 2**20
        why = " ".join(str(error).split())[:200] or type(error).__name__
        return ResourceExhausted(
            f"the checkpoint of step {self.state.global_step} could not be written: {why} ({free:,.0f} MiB are free). "
            f"Make room and give the same command again. {earlier}.",
            reason="CHECKPOINT_NOT_WRITTEN",
        )


class CarefulBiEncoderTrainer(_Careful, SentenceTransformerTrainer):
    """Trains a SentenceTransformer."""


class CarefulCrossEncoderTrainer(_Careful, CrossEncoderTrainer):
    """Trains a CrossEncoder."""
