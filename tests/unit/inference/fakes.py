"""Deterministic engines and costs that tests hold in their hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from winnow_inference.engines.base import EngineDescription, Lanes
from winnow_inference.scheduling.costs import CostModel
from winnow_inference.sequences import Matrix, TokenSequence


class FakeEngine:
    """Gives each sequence (sum of its ids, its length); waits at `gate` before each batch and remembers all of them."""

    width = 2
    description = EngineDescription(name="fake", device="cpu", dtype="float32", threads=1, reason="for tests")

    def __init__(self, lanes: Lanes | None = None) -> None:
        """`lanes` None: one, for both classes of work."""
        self.lanes = lanes or Lanes()
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        """Released whenever a batch begins."""
        self.batches: list[list[int]] = []
        """First ids of the sequences of each batch, in order."""
        self.ran: list[tuple[int, list[int]]] = []
        """The lane of each batch and the same first ids."""
        self.fail: Callable[[Sequence[TokenSequence]], None] = lambda batch: None
        """Called with each batch; may raise."""
        self.fail_to_prepare: Callable[[Sequence[TokenSequence]], None] = lambda batch: None
        """Called with each batch that is prepared; may raise."""
        self.seconds_per_token = 0.0
        """How long it takes over a batch."""
        self.running = 0
        """Batches that it is at."""
        self.closed = False
        self.closed_while_running = False
        self._lane_gates = [threading.Event() for _ in range(self.lanes.total)]
        self._lock = threading.Lock()
        self.release(*range(self.lanes.total))

    def hold(self, *lanes: int) -> None:
        """Lets no batch pass on these lanes until they are released."""
        for lane in lanes:
            self._lane_gates[lane].clear()

    def release(self, *lanes: int) -> None:
        """Lets batches pass on these lanes."""
        for lane in lanes:
            self._lane_gates[lane].set()

    def on(self, *lanes: int) -> list[list[int]]:
        """First ids of the sequences of each batch that has begun on these lanes, in order."""
        return [firsts for lane, firsts in self.ran if lane in lanes]

    def prepare(self, batch: Sequence[TokenSequence]) -> Sequence[TokenSequence]:
        self.fail_to_prepare(batch)
        return batch

    def run(self, prepared: Sequence[TokenSequence], lane: int) -> Matrix:
        batch = prepared
        with self._lock:
            self.batches.append([int(sequence.ids[0]) for sequence in batch])
            self.ran.append((lane, self.batches[-1]))
            self.running += 1
        self.began.release()
        try:
            assert self.gate.wait(10), "a test forgot to open the gate"
            assert self._lane_gates[lane].wait(10), "a test forgot to release a lane"
            time.sleep(self.seconds_per_token * sum(map(len, batch)))
            self.fail(batch)
            return np.array([[sequence.ids.sum(), len(sequence)] for sequence in batch], dtype=np.float32)
        finally:
            with self._lock:
                self.running -= 1

    def close(self) -> None:
        self.closed_while_running = self.running > 0
        self.closed = True


class FixedCosts(CostModel):
    """Costs that are known from the beginning and stay."""

    def __init__(self, fixed: float, per_token: float, per_pair: float = 0.0) -> None:
        super().__init__()
        self._coefficients = [fixed, per_token, per_pair]

    def observe(self, count: int, longest: int, seconds: float) -> None:
        """Nothing is learned."""


def sequence(first: int, length: int = 10) -> TokenSequence:
    """A sequence of that length whose first id is `first` and whose others are 0."""
    ids = np.zeros(length, dtype=np.int32)
    ids[0] = first
    return TokenSequence(ids, np.zeros(length, dtype=np.int32))
