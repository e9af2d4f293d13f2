"""An engine that answers at once or when the test says, and counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from winnow_inference.engines.base import EngineDescription, Lanes
from winnow_inference.sequences import Matrix, TokenSequence


class GatedEngine:
    """Gives each sequence its length in every component; waits at `gate` before each batch."""

    description = EngineDescription(name="gated", device="cpu", dtype="float32", threads=1, reason="for tests")
    lanes = Lanes()

    def __init__(self, width: int) -> None:
        self.width = width
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        """Released whenever a batch begins."""
        self.sizes: list[int] = []
        """Sequences of each batch that has reached it, in order."""
        self.fail: Callable[[], None] = lambda: None
        """Called with each batch; may raise."""

    @property
    def sequences(self) -> int:
        """Sequences that have reached it."""
        return sum(self.sizes)

    def prepare(self, batch: Sequence[TokenSequence]) -> Sequence[TokenSequence]:
        return batch

    def run(self, prepared: Sequence[TokenSequence], lane: int) -> Matrix:
        self.sizes.append(len(prepared))
        self.began.release()
        assert self.gate.wait(10), "a test forgot to open the gate"
        self.fail()
        return np.array([[len(sequence)] * self.width for sequence in prepared], dtype=np.float32)

    def close(self) -> None:
        self.gate.set()
