"""The contestant: what one writes by hand with sentence-transformers, and no more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from winnow_lab.training.columns import Columns

Turn = tuple[float, float]
"""Seconds of the training, the checkpoint at its end included, and the mean loss."""


def train_cross_encoder(start: Path, columns: Columns, out: Path, *, batch_size: int, steps: int, bf16: bool) -> Turn:
    """Trains on groups with LambdaLoss."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import LambdaLoss

    model = CrossEncoder(str(start), max_length=256, model_kwargs={"dtype": "float32"})
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        bf16=bf16,
        use_cpu=model.device.type == "cpu",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=LambdaLoss(model)
    )
    return _timed(trainer)


def train_bi_encoder(start: Path, columns: Columns, out: Path, *, batch_size: int, steps: int, bf16: bool) -> Turn:
    """Trains on triplets with MultipleNegativesRankingLoss."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(start), model_kwargs={"dtype": "float32"})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        bf16=bf16,
        use_cpu=model.device.type == "cpu",
        report_to="none",
        disable_tqdm=True,
        batch_sampler="no_duplicates",
    )
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=MultipleNegativesRankingLoss(model)
    )
    return _timed(trainer)


def _timed(trainer: Any) -> Turn:
    began = time.monotonic()
    loss = float(trainer.train().training_loss)
    return time.monotonic() - began, loss
