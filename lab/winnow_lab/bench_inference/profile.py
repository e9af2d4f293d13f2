"""Where a service's time goes, from what it said of its work and from its engine alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from winnow_lab.bench_figures import padding_share, range_of
from winnow_lab.bench_inference.contestants import Done


def profile(service: Sequence[Sequence[Done]], engine: Sequence[Sequence[Done]], *, tokens: int) -> dict[str, Any]:
    """The rounds of a service beside those of its engine in process; `tokens` are those of one round.

    Padding and batch sizes are the engine's in process, which chooses its batches as the service does. Times are of one
    request: the service's own median, and what its messages cost to serialize and parse in this process.
    """
    answers = [answer for turn in service for done in turn for answer in done.answers]
    batches = [batch for turn in engine for done in turn for batch in done.batches]
    seconds = range_of([sum(done.seconds for done in turn) for turn in service]).median
    alone = range_of([sum(done.seconds for done in turn) for turn in engine]).median
    queue, tokenize, inference = (
        round(float(np.median([answer.micros[at] for answer in answers])) / 1000, 3) for at in range(3)
    )
    # Of the last round alone: it takes a while, and they are all alike.
    serialization = [answer.serialization_micros() for done in service[-1] for answer in done.answers]
    sizes = [count for count, _, _ in batches]
    return {
        "tokens_per_second": round(tokens / seconds),
        "engine_tokens_per_second": round(tokens / alone),
        "share_of_engine": round(alone / seconds, 4),
        "cost_of_service": round(1 - alone / seconds, 4),
        "padding_share": round(padding_share(batches), 4),
        "batch_size_median": float(np.median(sizes)),
        "batch_size_low": min(sizes),
        "batch_size_high": max(sizes),
        "batch_padded_tokens_median": float(np.median([count * longest for count, longest, _ in batches])),
        "queue_ms": queue,
        "tokenize_ms": tokenize,
        "inference_ms": inference,
        "serialization_ms": round(float(np.median(serialization)) / 1000, 3),
    }
