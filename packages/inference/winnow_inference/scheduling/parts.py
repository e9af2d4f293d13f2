"""What comes back of a request."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_inference.scheduling.observing import Batch
from winnow_inference.sequences import Matrix


@dataclass(frozen=True, slots=True)
class Part:
    """Results of those sequences of one request that were in one batch."""

    indexes: list[int]
    """Positions in the request, rising."""
    rows: Matrix
    """Their results, in the order of `indexes`."""
    token_count: int
    """Their tokens."""
    queue_micros: int
    """From admission until the request's first batch began."""
    inference_micros: int
    """Model time of the batch, whoever else was in it."""
    batch: Batch
    """The batch."""


@dataclass(frozen=True, slots=True)
class Answer:
    """All results of a request."""

    rows: Matrix
    """One row a sequence, in their order."""
    queue_micros: int
    """From admission until its first batch began."""
    inference_micros: int
    """Model time of all batches in which it took part."""
    batches: list[Batch]
    """Those batches, as they ended."""
