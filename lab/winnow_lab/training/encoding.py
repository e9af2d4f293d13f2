"""Vectors and scores by models that are not trained here: the bi-encoder that mines, the cross-encoder that teaches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.progress import track

from winnow_client.cli.output import console
from winnow_lab.data.examples import Group
from winnow_lab.training.distributed import is_first
from winnow_lab.training.memory import keep_freed_memory
from winnow_lab.training.mining import Matrix
from winnow_lab.training.negatives import Embed
from winnow_lab.training.quiet import quiet_libraries
from winnow_lab.training.settings import Architecture
from winnow_lab.training.starting import load_start

ItemT = TypeVar("ItemT")

# Sorted by length within, so that little is padding.
_PART = 1024


def embedder(folder: Path, *, bf16: bool = False, batch_size: int = 64) -> Embed:
    """Embeds with the bi-encoder in a folder, loaded when it is first asked; with its own prompts."""
    loaded: list[Any] = []

    def embed(texts: Sequence[str], are_queries: bool) -> Matrix:
        with quiet_libraries(), _computing(bf16) as device:
            if not loaded:
                loaded.append(load_start(Architecture.BI_ENCODER, folder).to(device))
            model = loaded[0]
            encode = model.encode_query if are_queries else model.encode_document
            parts = [
                encode(list(part), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
                for part in _parts(texts, f"embed {'queries' if are_queries else 'documents'}")
            ]
        return np.concatenate(parts, dtype=np.float32)

    return embed


def taught(groups: Sequence[Group], folder: Path, *, bf16: bool = False, batch_size: int = 64) -> list[Group]:
    """The groups with the raw scores (logits) of the cross-encoder in a folder as their labels."""
    with quiet_libraries(), _computing(bf16) as device:
        teacher = load_start(Architecture.CROSS_ENCODER, folder).to(device)
        pairs = [(group.query, text) for group in groups for text in group.documents]
        scores = [
            float(score)
            for part in _parts(pairs, "score pairs")
            for score in teacher.predict(
                list(part), batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
        ]
    of = iter(scores)
    return [replace(group, labels=tuple(next(of) for _ in group.documents)) for group in groups]


def _parts(items: Sequence[ItemT], what: str) -> Iterator[Sequence[ItemT]]:
    """The items in parts, with a bar and the time left on a terminal."""
    parts = [items[start : start + _PART] for start in range(0, len(items), _PART)]
    shown = sys.stderr.isatty() and is_first()
    yield from track(parts, what, console=console(stderr=True), transient=True, disable=not shown)


@contextlib.contextmanager
def _computing(bf16: bool) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        yield device
