"""The OpenVINO engine: a converted model on the CPU.

A lane is an infer request that its thread calls by itself: with one thread a stream OpenVINO computes on the caller's
thread, and the system's scheduler shares the cores out. So the express lanes are a second compiled model whose requests
never wait for a bulk batch of the first (measured on 2 cores: a query under full bulk load took 3.5 ms at p50 and 10 at
p99, alone 2.9; where it had to wait for the end of a batch of 20 ms, 14 and 22).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from winnow_inference.engines.base import EngineDescription, Lanes
from winnow_inference.engines.padding import Arrays, padded
from winnow_inference.models.facts import Padding
from winnow_inference.sequences import Matrix, TokenSequence

CpuDtype = Literal["float32", "bfloat16", "int8"]
"""Number formats of the arithmetic here."""

# Compiled kernels that are kept per model, one for each shape that was met; without a bound they were seen to take
# 130 MB after some thousand shapes. Making one again costs about a millisecond.
_KEPT_KERNELS = 512


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model runs on the CPU."""

    dtype: CpuDtype
    """Number format of the arithmetic."""
    streams: int
    """Forward passes side by side."""
    threads: int
    """Threads of each."""
    reason: str
    """Why so, for a person."""


def read(file: Path) -> Any:
    """The model in an OpenVINO file, not compiled yet."""
    import openvino

    return openvino.Core().read_model(file)


def compiled(model: Any, *, dtype: CpuDtype, streams: int, threads: int) -> Any:
    """An `openvino.CompiledModel` for the CPU."""
    import openvino

    return openvino.Core().compile_model(
        model,
        "CPU",
        {
            # What int8 leaves unquantised is computed in float32: on a Zen 5 bf16 there made it slower.
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(streams * threads),
            # Other services run on these cores too, and pinned threads would not make way for them.
            "ENABLE_CPU_PINNING": "NO",
            "CPU_RUNTIME_CACHE_CAPACITY": str(_KEPT_KERNELS),
        },
    )


class OpenVinoEngine:
    """A converted bi-encoder or cross-encoder: the graph itself pools, normalises and activates."""

    def __init__(self, file: Path, plan: Plan, *, padding: Padding, width: int, express: bool = True) -> None:
        """`express`: with express lanes, for a tenth to a half more memory."""
        self._plan = plan
        self._padding = padding
        self._width = width
        self._lanes = Lanes(count=plan.streams, express=express)
        model = read(file)
        self._requests: list[Any] = []
        for _ in range(2 if express else 1):
            program = compiled(model, dtype=plan.dtype, streams=plan.streams, threads=plan.threads)
            self._requests += [program.create_infer_request() for _ in range(plan.streams)]

    @property
    def description(self) -> EngineDescription:
        """What it is."""
        plan = self._plan
        return EngineDescription(
            name="openvino",
            device="cpu",
            dtype=plan.dtype,
            threads=plan.threads,
            streams=plan.streams,
            reason=plan.reason,
        )

    @property
    def width(self) -> int:
        """Numbers per sequence."""
        return self._width

    @property
    def lanes(self) -> Lanes:
        """One for each stream, and as many express ones."""
        return self._lanes

    def prepare(self, batch: Sequence[TokenSequence]) -> Arrays:
        """The batch as padded arrays."""
        return padded(batch, self._padding)

    def run(self, prepared: Arrays, lane: int) -> Matrix:
        """Float32 [sequences, width]."""
        results = self._requests[lane].infer(prepared, share_inputs=True)
        # A copy: the request's own memory is overwritten by its next batch.
        return np.array(results[0], dtype=np.float32)

    def close(self) -> None:
        """Lets go of the compiled models."""
        self._requests = []
