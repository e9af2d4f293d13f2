"""Which waiting sequences make the next batch. Pure arithmetic on lengths.

A batch costs its padded tokens: its count times its longest sequence. So sequences of like length go together, drawn
from a window of what waits; the oldest of the window always goes, so that nothing starves for want of a match.
"""

from __future__ import annotations

from collections.abc import Sequence

# A batch costs about this many tokens before its first one: measured 10 to 13 ms for a batch of one short text where
# 5,000 tokens take a second (all-MiniLM-L6-v2, torch float32, 2 cores).
BATCH_OVERHEAD_TOKENS = 60


def choose_batch(lengths: Sequence[int], *, token_budget: int, max_count: int) -> list[int]:
    """Positions of the sequences to run together, the first of `lengths` among them, by falling length.

    Of all runs of the window sorted by length that hold the first one and fit the budget, it takes the one with the
    largest share of real tokens in what the device pays for; of equals, the larger. A first sequence that is over the
    budget by itself goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    head = order.index(0)
    sums = [0]
    for position in order:
        sums.append(sums[-1] + lengths[position])
    best, best_score = (head, head + 1), (-1.0, 0)
    for last in range(head, len(order)):
        longest = lengths[order[last]]
        count = min(token_budget // longest, max_count)
        start = max(0, last + 1 - count)
        if start > head:
            break  # every longer run would leave the first one out
        # Shorter sequences join only as long as they are worth their padding.
        for first in range(start, head + 1):
            score = (
                (sums[last + 1] - sums[first]) / ((last + 1 - first) * longest + BATCH_OVERHEAD_TOKENS),
                last + 1 - first,
            )
            if score > best_score:
                best, best_score = (first, last + 1), score
    return [order[at] for at in range(best[1] - 1, best[0] - 1, -1)]


def fitting_prefix(lengths: Sequence[int], *, token_budget: int, max_count: int) -> int:
    """How many of the first sequences fit one batch, at least 1."""
    longest = 0
    for count, length in enumerate(lengths):
        longest = max(longest, length)
        if count and (longest * (count + 1) > token_budget or count >= max_count):
            return count
    return len(lengths)
