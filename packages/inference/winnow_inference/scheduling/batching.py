"""Which waiting sequences make the next batch. Pure arithmetic on lengths and costs.

A batch computes its padded tokens: its count times its longest sequence. So sequences of like length go together, drawn
from a window of what waits; the oldest of the window always goes, so that nothing starves for want of a match. A
batch is a slice of the device's time: it holds no more than may run until somebody else gets a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow_inference.scheduling.costs import CostModel


@dataclass(frozen=True, kw_only=True)
class BatchBounds:
    """What a batch may be. A sequence that is over them by itself goes alone."""

    seconds: float
    """Expected time."""
    tokens: int
    """Tokens, padding included: what the device's memory holds."""
    count: int
    """Sequences."""


def choose_batch(lengths: Sequence[int], *, costs: CostModel, bounds: BatchBounds) -> list[int]:
    """Positions of the sequences to run together, the first of `lengths` among them, by falling length.

    Of all runs of the window sorted by length that hold the first one and keep to the bounds, it takes the one that
    gets the most real tokens out of a second of the device; of equals, the larger.
    """
    reach = _most(lengths[0], costs=costs, bounds=bounds)
    if len(lengths) == 1 or reach == 1:
        return [0]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # A batch with the first one and something longer is no larger than `reach`, nor is one with something shorter.
    head = order.index(0)
    start = max(0, head + 1 - reach)
    near = order[start : head + reach]
    head -= start
    ordered = np.array([lengths[position] for position in near], dtype=np.int64)
    sums = np.concatenate(([0], np.cumsum(ordered)))
    firsts, lasts = np.arange(head + 1)[:, None], np.arange(head, len(near))[None, :]
    counts = lasts - firsts + 1
    longest = ordered[lasts]
    fixed, per_token, per_pair = costs.coefficients
    padded = counts * longest
    seconds = fixed + padded * (per_token + per_pair * longest)
    allowed = (counts <= bounds.count) & (padded <= bounds.tokens) & (seconds <= bounds.seconds)
    allowed |= counts == 1
    rates = np.where(allowed, (sums[lasts + 1] - sums[firsts]) / np.maximum(seconds, np.finfo(float).tiny), -1.0)
    # Of rates that differ by rounding alone, the larger batch.
    best = int(np.where(rates >= rates.max() * (1 - 1e-9), counts, 0).argmax())
    first, last = divmod(best, len(near) - head)
    return [near[at] for at in range(head + last, first - 1, -1)]


def _most(length: int, *, costs: CostModel, bounds: BatchBounds) -> int:
    """How many sequences of one length fit a batch, at least 1."""
    fixed, per_token, per_pair = costs.coefficients
    each = length * (per_token + per_pair * length)
    in_time = int((bounds.seconds - fixed) / each) if each > 0 else bounds.count
    return max(1, min(in_time, bounds.tokens // length, bounds.count))


def fitting_prefix(lengths: Sequence[int], *, costs: CostModel, bounds: BatchBounds) -> int:
    """How many of the first sequences fit one batch, at least 1."""
    longest = 0
    for count, length in enumerate(lengths):
        longest = max(longest, length)
        size = count + 1
        over = size > bounds.count or longest * size > bounds.tokens or costs.seconds(size, longest) > bounds.seconds
        if count and over:
            return count
    return len(lengths)
