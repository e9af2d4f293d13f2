"""What can be seen of the batches as they run, by whoever counts or traces them."""

from __future__ import annotations

from dataclasses import dataclass

from winnow_inference.scheduling.queueing import Priority


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that has run. All who had a sequence in it share it."""

    number: int
    """Counts the batches of a runner, from 1."""
    lane: int
    """Where it ran."""
    priority: Priority
    """Whose turn it was."""
    texts: int
    """Its sequences."""
    tokens: int
    """Their tokens, padding not counted."""
    padded_tokens: int
    """Its sequences times the longest one: the rectangle that it fills. An engine that leaves padding out, as torch may
    on a GPU, computes less."""
    began: float
    """When it began on the device, on the clock of `time.monotonic()`."""
    seconds: float
    """Time on the device."""


class Observer:
    """Is told what happens, on the event loop, and must be quick. This one does nothing."""

    def batch_ended(self, batch: Batch) -> None:
        """A batch has run."""

    def request_began(self, priority: Priority, seconds: float) -> None:
        """A request's first batch has run; it began so long after the request was admitted."""

    def engine_restarted(self) -> None:
        """The engine was lost, and a new one stands."""
