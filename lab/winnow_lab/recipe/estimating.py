"""How long a training of the shipped cross-encoder will take, on this machine and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from winnow_lab.data.examples import Group
from winnow_lab.training.cropping import cropped
from winnow_lab.training.memory import keep_freed_memory
from winnow_lab.training.quiet import quiet_libraries
from winnow_lab.training.settings import Architecture, TrainingSettings
from winnow_lab.training.starting import load_start, set_dropout

GPU_FLOPS = 60e12
"""What one card is assumed to keep up in bf16 with pairs this short: a fifth of an A100's 312 TFLOP/s (its data sheet).
Reckoned, not measured."""


def estimate(start: Path, groups: Sequence[Group], settings: TrainingSettings) -> tuple[float, float]:
    """Seconds of the whole training, on this machine and on one GPU."""
    keep_freed_memory()
    with quiet_libraries():
        model = load_start(Architecture.CROSS_ENCODER, start)
        # Reckoned first: computing a step moves the model to its device.
        on_gpu = _seconds_on_gpu(model, groups, settings)
        return _seconds_here(model, groups, settings), on_gpu


def _seconds_here(model: Any, groups: Sequence[Group], settings: TrainingSettings) -> float:
    """From two parts of a step that are really computed."""
    set_dropout(model, settings.dropout)
    model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    part = groups[: settings.per_process(1)]
    pairs = [(group.query, text) for group in part for text in group.documents]
    taken = 0.0
    with cropped(model), torch.autocast(device, dtype=torch.bfloat16, enabled=settings.bf16):
        # The first makes what later ones find ready.
        for _ in range(2):
            began = time.perf_counter()
            features = {name: _to(value, device) for name, value in model.preprocess(pairs).items()}
            model(features)["scores"].sum().float().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            taken = time.perf_counter() - began
    return taken * settings.accumulate * settings.steps(len(groups))


def _seconds_on_gpu(model: Any, groups: Sequence[Group], settings: TrainingSettings) -> float:
    """Reckoned: 6 floating-point operations for each parameter of the layers and each token (Kaplan et al. 2020,
    arXiv:2001.08361), attention itself left out."""
    named = model.named_parameters()
    parameters = sum(each.numel() for name, each in named if "embeddings" not in name)
    sample = groups[:: max(1, len(groups) // 50)]
    lengths = [
        min(len(ids), settings.max_tokens)
        for group in sample
        for ids in model.tokenizer([group.query] * len(group.documents), list(group.documents))["input_ids"]
    ]
    tokens = sum(lengths) / len(sample) * settings.batch_size * settings.steps(len(groups))
    return float(6 * parameters * tokens / GPU_FLOPS)


def _to(value: object, device: str) -> object:
    return value.to(device) if isinstance(value, torch.Tensor) else value
