"""The interface of every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from winnow_inference.sequences import Matrix, TokenSequence


@dataclass(frozen=True, kw_only=True)
class EngineDescription:
    """What an engine is and why it was chosen. It changes speed and rounding, not meaning."""

    name: str
    """Its name: "torch"."""
    device: str
    """Where it computes, as it names it: "cpu", "cuda:0"."""
    dtype: str
    """Number format of the arithmetic: "float32", "bfloat16", "float16"."""
    threads: int
    """Threads that one forward pass may use; 0 where the device decides."""
    reason: str
    """Why this engine, device and dtype, for a person."""


class EngineLost(Exception):
    """The engine cannot go on at all: its device is gone, its state is broken. A new one has to be made."""


class Engine(Protocol):
    """Computes batches, one at a time, always on the thread that made it."""

    @property
    def description(self) -> EngineDescription:
        """What it is."""
        ...

    @property
    def width(self) -> int:
        """Numbers per sequence: the vector's components, or the labels."""
        ...

    def run(self, batch: Sequence[TokenSequence]) -> Matrix:
        """Float32 [len(batch), width], in the order of the batch, each row independent of the others.

        Raises EngineLost if the engine is beyond use; any other exception concerns this batch alone.
        """
        ...

    def close(self) -> None:
        """Releases what it holds. It is not used afterwards."""
        ...
