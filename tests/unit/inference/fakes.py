"""A deterministic engine that tests hold in their hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from winnow_inference.engines.base import EngineDescription, Lanes
from winnow_inference.sequences import Matrix, TokenSequence


class FakeEngine:
    """Gives each sequence (sum of its ids, its length); waits at `gate` before each batch and remembers all of them."""

    width = 2
    description = EngineDescription(name="fake", device="cpu", dtype="float32", threads=1, reason="for tests")
    lanes = Lanes()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        """Released whenever a batch begins."""
        self.batches: list[list[int]] = []
        """First ids of the sequences of each batch, in order."""
        self.fail: Callable[[Sequence[TokenSequence]], None] = lambda batch: None
        """Called with each batch; may raise."""
        self.closed = False

    def prepare(self, batch: Sequence[TokenSequence]) -> Sequence[TokenSequence]:
        return batch

    def run(self, prepared: Sequence[TokenSequence], lane: int) -> Matrix:
        batch = prepared
        self.batches.append([int(sequence.ids[0]) for sequence in batch])
        self.began.release()
        assert self.gate.wait(10), "a test forgot to open the gate"
        self.fail(batch)
        return np.array([[sequence.ids.sum(), len(sequence)] for sequence in batch], dtype=np.float32)

    def close(self) -> None:
        self.closed = True


def sequence(first: int, length: int = 10) -> TokenSequence:
    """A sequence of that length whose first id is `first` and whose others are 0."""
    ids = np.zeros(length, dtype=np.int32)
    ids[0] = first
    return TokenSequence(ids, np.zeros(length, dtype=np.int32))
