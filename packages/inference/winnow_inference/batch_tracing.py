"""The trace of a request within a model service: what it cost, and the batches that it rode in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from winnow_inference.scheduling.observing import Batch
from winnow_rpc import tracing


class Costed(Protocol):
    """Results, or some of them, that say what they cost: `Embedded`, `Scored`."""

    @property
    def token_count(self) -> int:
        """Tokens that the model read."""
        ...

    @property
    def queue_micros(self) -> int:
        """Waited for the device."""
        ...

    @property
    def tokenize_micros(self) -> int:
        """Turning text into tokens."""
        ...

    @property
    def inference_micros(self) -> int:
        """Model time of the batches."""
        ...

    @property
    def batches(self) -> Sequence[Batch]:
        """The batches."""
        ...


class CostTrace:
    """What a call has cost so far, on its span."""

    def __init__(self) -> None:
        self._tokens = self._queue = self._tokenize = self._inference = 0

    def add(self, part: Costed) -> None:
        """Adds what came. Each batch becomes a span; other calls that were in it have a span of the same number."""
        span = tracing.current()
        if not span.recording:
            return
        self._tokens += part.token_count
        self._queue += part.queue_micros
        self._tokenize += part.tokenize_micros
        self._inference += part.inference_micros
        span.set(
            tokens=self._tokens,
            queue_micros=self._queue,
            tokenize_micros=self._tokenize,
            inference_micros=self._inference,
        )
        # What runs is timed by the monotonic clock; spans want the time of day.
        offset = time.time() - time.monotonic()
        for batch in part.batches:
            began = batch.began + offset
            tracing.past_span(
                "batch",
                began_ns=round(began * 1e9),
                ended_ns=round((began + batch.seconds) * 1e9),
                batch=batch.number,
                lane=batch.lane,
                priority=batch.priority.value,
                texts=batch.texts,
                tokens=batch.tokens,
                padding_tokens=batch.padded_tokens - batch.tokens,
            )
