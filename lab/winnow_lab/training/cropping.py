"""Padding that is not computed: a padded batch runs as several short ones, sorted by length.

A loss hands its model one batch padded to its longest text. Of random texts of 20 to 250 tokens a third or more of that
is padding. The loss keeps its batch, so its value and gradient are the same but for rounding (and for what dropout
draws); only the forward pass is split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CHUNK_TOKENS = 4096
"""Padded tokens of one forward pass. On two CPU cores more is not quicker, and less is spent between products."""


@contextmanager
def cropped(model: nn.Sequential, *, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[None]:
    """Inside, the first module of a sentence-transformers model of either kind computes no more padding than it must.

    Only the instance's `forward` is replaced, so that parameters keep their names and saving is as ever.
    """
    first = model[0]
    whole = first.forward

    def forward(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        mask: Tensor = features["attention_mask"]
        lengths = mask.sum(dim=1)
        order = lengths.argsort(descending=True)
        parts = [
            whole({name: _crop(value, rows, longest, mask) for name, value in features.items()}, **options)
            for rows, longest in _chunks(order, lengths, chunk_tokens)
        ]
        return {**features, **_join(parts, features, order.argsort())}

    first.forward = forward
    try:
        yield
    finally:
        # The class's own method shows again.
        del first.forward


def _chunks(order: Tensor, lengths: Tensor, chunk_tokens: int) -> Iterator[tuple[Tensor, int]]:
    """Rows of each chunk, longest first, and the tokens of its longest."""
    sizes = lengths[order].tolist()
    start = 0
    while start < len(sizes):
        longest = max(int(sizes[start]), 1)
        count = max(1, chunk_tokens // longest)
        yield order[start : start + count], longest
        start += count


def _crop(value: Any, rows: Tensor, length: int, mask: Tensor) -> Any:
    """The rows of what is [texts, tokens], cut to a length; anything else is passed on."""
    if isinstance(value, Tensor) and value.shape == mask.shape:
        return value[rows, :length]
    return value


def _join(parts: list[dict[str, Any]], features: dict[str, Any], back: Tensor) -> dict[str, Any]:
    """What the module added to the features: rows in their first order, padded to their first length."""
    tokens = features["attention_mask"].shape[1]
    joined = {}
    for name, value in parts[0].items():
        if name in features or not isinstance(value, Tensor):
            continue
        pieces = [part[name] for part in parts]
        if value.dim() == 3:
            pieces = [nn.functional.pad(each, (0, 0, 0, tokens - each.shape[1])) for each in pieces]
        joined[name] = torch.cat(pieces)[back]
    return joined
