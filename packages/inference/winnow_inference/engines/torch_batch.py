"""Token sequences to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from winnow_inference.sequences import TokenSequence


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How a model wants its batches filled up to a rectangle."""

    token_id: int
    """Id of the padding token."""
    segment_id: int
    """Segment of the padding token."""
    left: bool
    """Padding goes before the text (causal models), not after it."""
    segments: bool
    """The model takes `token_type_ids`."""


def padded(batch: Sequence[TokenSequence], padding: Padding, device: str) -> dict[str, Any]:
    """Int64 tensors [len(batch), longest] on the device: input_ids, attention_mask, and token_type_ids if wanted."""
    import torch

    lengths = [len(sequence) for sequence in batch]
    shape = (len(batch), max(lengths))
    ids = np.full(shape, padding.token_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, padding.segment_id, dtype=np.int64) if padding.segments else None
    for row, (sequence, length) in enumerate(zip(batch, lengths, strict=True)):
        span = slice(shape[1] - length, None) if padding.left else slice(0, length)
        ids[row, span] = sequence.ids
        mask[row, span] = 1
        if segments is not None:
            segments[row, span] = sequence.segments
    features = {"input_ids": ids, "attention_mask": mask}
    if segments is not None:
        features["token_type_ids"] = segments
    return {name: torch.from_numpy(values).to(device) for name, values in features.items()}
