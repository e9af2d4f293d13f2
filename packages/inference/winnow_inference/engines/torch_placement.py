"""Where and in which number format torch computes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from winnow_rpc.faults import FailedPrecondition

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A device and how to use it."""

    device: str
    """As torch names it: "cpu", "cuda:0"."""
    dtype: str
    """As torch names it: "float32"."""
    threads: int
    """Threads of one forward pass; 0 on a GPU."""
    reason: str
    """Why, for a person."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's own."""
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found


def usable_cores() -> int:
    """Cores that this process may run on, containers' affinity included."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(*, device: str, dtype: str, threads: int) -> Placement:
    """Settles `auto`s. Raises FailedPrecondition if a GPU is asked for and there is none of that number."""
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        if number >= found:
            raise FailedPrecondition(
                f"device {device} was asked for, but torch {torch.__version__} finds "
                f"{f'{found} CUDA devices' if found else 'no CUDA device'} here",
                reason="DEVICE_NOT_FOUND",
                metadata={"device": device},
            )
        device, why = f"cuda:{number}", "device set"
    elif device == "auto":
        device, why = ("cuda:0", "a GPU is here") if found else ("cpu", "no GPU is here")
    else:
        why = "device set"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "float16"
        why += f"; {dtype} by default there"
    else:
        why += f"; {dtype} set"
    return Placement(
        device=device, dtype=dtype, threads=(threads or usable_cores()) if device == "cpu" else 0, reason=why
    )
