"""Puts a trainer of sentence-transformers together from settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.base.evaluation import SequentialEvaluator
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.cross_encoder.training_args import CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from transformers import EarlyStoppingCallback, PrinterCallback

from winnow_lab.training.columns import Columns
from winnow_lab.training.distributed import processes
from winnow_lab.training.history import METRIC
from winnow_lab.training.losses import make_loss
from winnow_lab.training.run_folder import RunFolder
from winnow_lab.training.settings import Architecture, Loss, TrainingSettings
from winnow_lab.training.trainers import CarefulBiEncoderTrainer, CarefulCrossEncoderTrainer

# Losses are written down so many times between two evaluations.
_LOGS_PER_INTERVAL = 10


def arguments(
    architecture: Architecture, settings: TrainingSettings, checkpoints: Path, *, examples: int, evaluated: bool
) -> Any:
    """The trainer's arguments. Making them joins the process group, if there are other processes."""
    kind = (
        SentenceTransformerTrainingArguments
        if architecture is Architecture.BI_ENCODER
        else CrossEncoderTrainingArguments
    )
    on_gpu = torch.cuda.is_available()
    interval = settings.interval(examples)
    return kind(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.per_process(processes()),
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        # Below 1 it is a share of all steps.
        warmup_steps=settings.warmup,
        **_falling(settings, examples),
        weight_decay=settings.weight_decay,
        bf16=settings.bf16,
        seed=settings.seed,
        eval_strategy="steps" if evaluated else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        load_best_model_at_end=evaluated,
        metric_for_best_model=METRIC if evaluated else None,
        greater_is_better=True if evaluated else None,
        restore_callback_states_from_checkpoint=settings.patience > 0,
        logging_steps=max(1, interval // _LOGS_PER_INTERVAL),
        batch_sampler=(
            # A text that is in the batch twice would be its own negative.
            BatchSamplers.NO_DUPLICATES if settings.loss in (Loss.MNR, Loss.CACHED_MNR) else BatchSamplers.BATCH_SAMPLER
        ),
        dataloader_drop_last=examples >= settings.batch_size,
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        ddp_backend="gloo" if processes() > 1 and not on_gpu else None,
        disable_tqdm=True,
        report_to="none",
    )


def _falling(settings: TrainingSettings, examples: int) -> dict[str, Any]:
    """How the learning rate falls after the warm-up."""
    if settings.decay == 1:
        return {"lr_scheduler_type": "linear"}
    steps = max(1, round(settings.decay * settings.steps(examples)))
    return {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": steps, "decay_type": "cosine"},
    }


def make_trainer(
    architecture: Architecture,
    model: Any,
    args: Any,
    columns: Columns,
    settings: TrainingSettings,
    evaluators: Sequence[Any],
    folder: RunFolder,
) -> Any:
    """The trainer, ready to train."""
    kind = CarefulBiEncoderTrainer if architecture is Architecture.BI_ENCODER else CarefulCrossEncoderTrainer
    trainer = kind(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(columns),
        loss=make_loss(model, settings, processes=processes()),
        evaluator=_one(evaluators),
    )
    trainer.folder = folder
    trainer.wanted_metric = settings.metric or _main_metric(evaluators)
    trainer.remove_callback(PrinterCallback)
    if evaluators and settings.patience:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    return trainer


def _one(evaluators: Sequence[Any]) -> Any:
    if len(evaluators) < 2:
        return evaluators[0] if evaluators else None
    return SequentialEvaluator(list(evaluators), main_score_function=lambda scores: sum(scores) / len(scores))


def _main_metric(evaluators: Sequence[Any]) -> str:
    """What decides if nobody says: the evaluator's main metric, or the mean of those of several."""
    if len(evaluators) > 1:
        return "sequential_score"
    # Those of bi-encoders name theirs only once they have run.
    if evaluators and isinstance(evaluators[0], EmbeddingSimilarityEvaluator):
        return "spearman_cosine"
    return str((evaluators[0].primary_metric if evaluators else None) or "ndcg@10")
