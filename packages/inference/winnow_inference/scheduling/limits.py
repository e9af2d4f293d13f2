"""Bounds of a runner, from the settings and the device."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_inference.scheduling.batching import BatchBounds
from winnow_inference.settings import InferenceSettings


@dataclass(frozen=True, kw_only=True)
class RunnerLimits:
    """What a runner may hold and how long a batch may take."""

    max_batch_tokens: int
    """Tokens of a batch, padding included: what the device's memory holds."""
    max_queued_tokens: int
    """Tokens that may wait, requests of both classes together. A request that waits for room waits no longer than until
    nothing of its class is in the queue, and may go beyond this."""
    max_batch_count: int = 256
    """Sequences of a batch."""
    batch_seconds: float = 0.025
    """Time that a batch may be expected to take: how long a lane is held before somebody else gets a turn."""
    max_wait_seconds: float = float("inf")
    """Interactive work that would wait longer than this for its turn is refused at once."""
    bulk_patience_seconds: float = 1.0
    """Bulk work that has been passed over for this long gets one batch."""
    bulk_share: float = 0.75
    """Share of the queue that bulk work may fill, so that a query always finds room."""
    stuck_seconds: float = 60.0
    """A batch on the device for longer than this is stuck: the model's longest text alone takes a hundredth of it on a
    CPU."""
    warm_up_lengths: tuple[int, ...] = ()
    """Lengths of the sequences that the engine computes before it serves, from which the first costs are learned."""

    @property
    def batch_bounds(self) -> BatchBounds:
        """The bounds of one batch."""
        return BatchBounds(seconds=self.batch_seconds, tokens=self.max_batch_tokens, count=self.max_batch_count)


def runner_limits(settings: InferenceSettings, *, max_token_count: int) -> RunnerLimits:
    """The limits that the settings say, for a model that reads `max_token_count` tokens."""
    return RunnerLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_queued_tokens=settings.max_queued_tokens,
        batch_seconds=settings.batch_millis / 1000,
        max_wait_seconds=settings.max_wait_seconds,
        warm_up_lengths=tuple(sorted({min(length, max_token_count) for length in (8, 32, 128, 256)})),
    )
