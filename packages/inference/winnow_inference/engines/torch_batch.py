"""Token sequences laid out as the arrays of a forward pass, in host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winnow_inference.models.facts import Padding
from winnow_inference.sequences import TokenSequence

if TYPE_CHECKING:
    import torch

Allocate = Callable[[Sequence[int]], "torch.Tensor"]
"""Makes an uninitialized int64 tensor of a shape, in host memory."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the tokens of a padded batch are, so that they can be put one after the other without padding.

    Known to the host before the device begins: to ask a mask on the device for its true places would stop the stream.
    """

    positions: torch.Tensor
    """Int64 [tokens]: place of each token in the rectangle, row by row."""
    boundaries: torch.Tensor
    """Int32 [sequences + 1]: where each sequence begins among the packed tokens, and where the last one ends."""
    lengths: tuple[int, ...]
    """Tokens of each sequence."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.lengths)

    def to(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Packing:
        """The same elsewhere."""
        import torch

        return Packing(
            positions=move(self.positions),
            boundaries=move(self.boundaries).to(torch.int32),
            lengths=self.lengths,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Those sequences of a batch that take one forward pass; mostly all of them."""

    rows: tuple[int, ...]
    """Their positions in the batch."""
    features: torch.Tensor
    """Int64 [features, sequences or more, longest or more], as `padded` makes it."""
    recorded: bool
    """A graph was recorded for this shape."""
    packing: Packing | None
    """Where the tokens are, if they will be packed."""
    prompt_length: int
    """Leading tokens of each that pooling leaves out."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch, ready for the device."""

    count: int
    """Its sequences."""
    parts: tuple[Part, ...]
    """Its forward passes."""


def feature_names(padding: Padding) -> tuple[str, ...]:
    """The model's inputs, as transformers names them, in the order of `padded`."""
    return ("input_ids", "attention_mask", *(("token_type_ids",) if padding.segments else ()))


def padded(
    batch: Sequence[TokenSequence],
    padding: Padding,
    *,
    allocate: Allocate,
    count: int = 0,
    length: int = 0,
) -> torch.Tensor:
    """Int64 [features, count, length] in the order of `feature_names`, each row one sequence filled up.

    `count` and `length` are at least those of the batch, and by default are. In rows past the batch one token is real:
    where all are masked, attention divides nought by nought.
    """
    shape = (max(count, len(batch)), max(length, *(len(sequence) for sequence in batch)))
    features = allocate((len(feature_names(padding)), *shape))
    arrays = features.numpy()
    for array, fill in zip(arrays, (padding.token_id, 0, padding.segment_id), strict=False):
        array.fill(fill)
    for row, sequence in enumerate(batch):
        span = _span(len(sequence), shape[1], left=padding.left)
        arrays[0, row, span] = sequence.ids
        arrays[1, row, span] = 1
        if padding.segments:
            arrays[2, row, span] = sequence.segments
    arrays[1, len(batch) :, _span(1, shape[1], left=padding.left)] = 1
    return features


def packing(lengths: Sequence[int], *, width: int, left: bool, allocate: Allocate) -> Packing:
    """Where the tokens of sequences of these lengths lie in rows of `width`, filled up on the left or the right."""
    positions = allocate((sum(lengths),))
    boundaries = allocate((len(lengths) + 1,))
    ends = np.cumsum(lengths)
    boundaries.numpy()[0] = 0
    boundaries.numpy()[1:] = ends
    # Token t of row r lies at r·width + t: how far each row's tokens stand from where they are packed, token by token.
    firsts = np.arange(len(lengths)) * width + (width - np.asarray(lengths) if left else 0)
    positions.numpy()[:] = np.arange(ends[-1]) + np.repeat(firsts - (ends - lengths), lengths)
    return Packing(positions=positions, boundaries=boundaries, lengths=tuple(lengths))


def random_sequences(lengths: Sequence[int], *, vocabulary: int, seed: int) -> list[TokenSequence]:
    """Sequences of these lengths that mean nothing, the same for the same seed: to see whether two ways agree."""
    random = np.random.default_rng(seed)
    return [
        TokenSequence(random.integers(vocabulary, size=length, dtype=np.int32), np.zeros(length, dtype=np.int32))
        for length in lengths
    ]


def _span(length: int, width: int, *, left: bool) -> slice:
    return slice(width - length, width) if left else slice(0, length)
