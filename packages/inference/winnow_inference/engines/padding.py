"""Token sequences to a rectangle of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from winnow_inference.models.facts import Padding
from winnow_inference.sequences import TokenSequence

Arrays = dict[str, NDArray[np.int64]]
"""`input_ids`, `attention_mask` and, where the model takes them, `token_type_ids`; each [sequences, longest]."""


def padded(batch: Sequence[TokenSequence], padding: Padding) -> Arrays:
    """The batch filled up to its longest sequence, as int64 arrays by the names that transformers gives them."""
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
    arrays = {"input_ids": ids, "attention_mask": mask}
    if segments is not None:
        arrays["token_type_ids"] = segments
    return arrays
