"""Runs a training from start to finish: goes on from a checkpoint if there is one, and keeps the best model.

The command line is thin over the two functions here; a script or a recipe calls them alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import set_seed

from winnow_lab.data.examples import Group, ScoredPair, Triplet
from winnow_lab.hashing import hash_of
from winnow_lab.training.assembling import arguments, make_trainer
from winnow_lab.training.columns import Columns, Examples, columns_for
from winnow_lab.training.cropping import cropped
from winnow_lab.training.distributed import is_first, processes
from winnow_lab.training.finishing import Trained, keep, read_trained
from winnow_lab.training.history import read_log
from winnow_lab.training.memory import keep_freed_memory
from winnow_lab.training.progress import Progress
from winnow_lab.training.quiet import quiet_libraries
from winnow_lab.training.run_folder import RunFolder, step_of
from winnow_lab.training.settings import Architecture, TrainingSettings, WeightFormat
from winnow_lab.training.starting import load_start, set_dropout, weights_hash
from winnow_lab.training.storing import store_as
from winnow_rpc.faults import InvalidArgument


def train_bi_encoder(
    start: Path,
    examples: Sequence[Triplet] | Sequence[ScoredPair],
    settings: TrainingSettings,
    evaluators: Sequence[Any],
    out: Path,
    *,
    source: str = "",
    evaluated_on: str = "",
    overwrite: bool = False,
    weights: WeightFormat = WeightFormat.FLOAT32,
) -> Trained:
    """Trains a SentenceTransformer that starts from a model folder; `out` is then such a folder.

    `evaluators` are sentence-transformers'; without any, nothing is measured and the last model is kept. What an
    earlier call with the same arguments left in `out` goes on; another training's is refused unless `overwrite`.
    `source` says in the card where the examples are from, `evaluated_on` names what the evaluators look at: of other
    data it is another training. `weights` is what the model is stored in and no part of the
    run: asked again for float16, a finished one is only stored anew. Raises a Fault in one sentence for whatever goes
    wrong.
    """
    return _train(
        Architecture.BI_ENCODER, start, examples, settings, evaluators, out, source, evaluated_on, overwrite, weights
    )


def train_cross_encoder(
    start: Path,
    examples: Sequence[Group] | Sequence[ScoredPair],
    settings: TrainingSettings,
    evaluators: Sequence[Any],
    out: Path,
    *,
    source: str = "",
    evaluated_on: str = "",
    overwrite: bool = False,
    weights: WeightFormat = WeightFormat.FLOAT32,
) -> Trained:
    """Trains a CrossEncoder with one output; as `train_bi_encoder` else.

    `start` may be a cross-encoder, a bi-encoder or a bare encoder; the latter two get a new head.
    """
    return _train(
        Architecture.CROSS_ENCODER, start, examples, settings, evaluators, out, source, evaluated_on, overwrite, weights
    )


def _train(
    architecture: Architecture,
    start: Path,
    examples: Examples,
    settings: TrainingSettings,
    evaluators: Sequence[Any],
    out: Path,
    source: str,
    evaluated_on: str,
    overwrite: bool,
    weights: WeightFormat,
) -> Trained:
    columns = columns_for(settings.loss, examples, sharpness=settings.sharpness)
    count = len(next(iter(columns.values())))
    settings.per_process(processes())
    keep_freed_memory()
    if processes() > 1 and count < settings.batch_size:
        raise InvalidArgument(f"{count} examples do not fill one batch of {settings.batch_size}", field="batch_size")
    folder = RunFolder(out)
    if is_first():
        of_what = {"architecture": architecture, "start": weights_hash(start), "examples": _hash_of_examples(columns)}
        if evaluators:
            # Metrics of other data would be compared with those from before a kill.
            of_what["evaluated_on"] = evaluated_on
        folder.claim({**of_what, **asdict(settings)}, overwrite=overwrite)
        folder.latest()
    with quiet_libraries():
        args = arguments(architecture, settings, folder.checkpoints, examples=count, evaluated=bool(evaluators))
        # The process group is there now: nobody looks before the first process has made the folder its own.
        args.distributed_state.wait_for_everyone()
        if folder.finished():
            if is_first():
                store_as(folder, architecture, weights)
                folder.close()
            args.distributed_state.wait_for_everyone()
            return read_trained(folder)
        set_seed(settings.seed)
        model = load_start(architecture, start)
        set_dropout(model, settings.dropout)
        own_limit = model.max_seq_length
        model.max_seq_length = min(settings.max_tokens, own_limit or settings.max_tokens)
        whole = folder.whole()
        args.eval_on_start = bool(evaluators) and not whole
        args.prompts = _prompts(model, columns)
        trainer = make_trainer(architecture, model, args, columns, settings, evaluators, folder)
        began = time.monotonic()
        _run(trainer, model, settings, resume=whole[-1] if whole else None)
        seconds = time.monotonic() - began
        model.max_seq_length = own_limit
        steps = trainer.state.global_step
        if not steps:
            raise InvalidArgument(
                f"not one batch of {settings.batch_size} could be made of {count} examples: too many of them share a "
                f"text, and one that is in a batch twice would be its own negative. Begin anew (--overwrite) with a "
                f"smaller --batch",
                field="batch_size",
            )
        before = (step_of(whole[-1]) if whole else 0) or 0
        trained = Trained(
            out=out,
            history=read_log(trainer.state.log_history, wanted=trainer.wanted_metric),
            examples=count,
            steps=steps,
            seconds=seconds,
            pairs_per_second=(steps - before) * settings.batch_size * _pairs(columns) / count / seconds,
        )
        if is_first():
            keep(folder, model, trained, architecture=architecture, settings=settings, source=source, weights=weights)
        args.distributed_state.wait_for_everyone()
    return trained


def _run(trainer: Any, model: Any, settings: TrainingSettings, *, resume: Path | None) -> None:
    progress = Progress(f"train {trainer.folder.out.name}")
    trainer.add_callback(progress)
    with cropped(model) if settings.crop else contextlib.nullcontext():
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        finally:
            progress.stop()


def _prompts(model: Any, columns: Columns) -> dict[str, str] | None:
    """The prompts that a bi-encoder serves with, for each column; the texts of scored pairs are passages."""
    named = {name: text for name, text in model.prompts.items() if text}
    passage = next((named[name] for name in ("document", "passage", "corpus") if name in named), "")
    prompts = {name: passage for name in columns if name not in ("label", "labels")}
    if "anchor" in columns:
        prompts["anchor"] = named.get("query", "")
    return prompts if any(prompts.values()) else None


def _hash_of_examples(columns: Columns) -> str:
    return hash_of(chain([list(columns)], zip(*columns.values(), strict=True)))


def _pairs(columns: Columns) -> int:
    """Pairs of a first text with another in all examples."""
    texts = [values for name, values in columns.items() if name not in ("label", "labels")][1:]
    return sum(len(value) if isinstance(value, list) else 1 for values in texts for value in values)
