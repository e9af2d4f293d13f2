"""The interface of every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from winnow_inference.sequences import Matrix, TokenSequence


@dataclass(frozen=True, kw_only=True)
class EngineDescription:
    """What an engine is and why it was chosen. It changes speed and rounding, not meaning."""

    name: str
    """Its name: "torch", "openvino"."""
    device: str
    """Where it computes, as it names it: "cpu", "cuda:0"."""
    dtype: str
    """Number format of the arithmetic: "float32", "bfloat16", "float16", "int8"."""
    threads: int
    """Threads that one forward pass may use; 0 where the device decides."""
    streams: int = 1
    """Forward passes that run side by side."""
    reason: str
    """Why this engine, device and dtype, for a person."""


class EngineLost(Exception):
    """The engine cannot go on at all: its device is gone, its state is broken. A new one has to be made."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """How many batches an engine computes side by side, each on a thread of its own: its lane."""

    count: int = 1
    """Lanes, numbered from 0. As many as keep the device busy."""
    express: bool = False
    """There are `count` more, numbered after the first ones, for interactive work alone.

    Where the system shares a device between threads by itself (a CPU), a query need not wait for the end of a bulk
    batch: it starts at once on a lane of its own, and the scheduler gives it its share.
    """

    @property
    def total(self) -> int:
        """All lanes, express ones included."""
        return self.count * 2 if self.express else self.count


class Engine(Protocol):
    """Computes batches. It is made on the thread of lane 0, and each lane runs on one thread for the engine's life."""

    @property
    def description(self) -> EngineDescription:
        """What it is."""
        ...

    @property
    def width(self) -> int:
        """Numbers per sequence: the vector's components, or the labels."""
        ...

    @property
    def lanes(self) -> Lanes:
        """Its lanes; they do not change."""
        ...

    def prepare(self, batch: Sequence[TokenSequence]) -> Any:
        """What `run` takes: the batch laid out as arrays. Called on any thread, also while the lanes compute."""
        ...

    def run(self, prepared: Any, lane: int) -> Matrix:
        """Float32 [sequences of the batch, width], in the batch's order, each row independent of the others.

        Raises EngineLost if the engine is beyond use; any other exception concerns this batch alone.
        """
        ...

    def close(self) -> None:
        """Releases what it holds, on the thread of lane 0 after all lanes have ended. It is not used afterwards."""
        ...
