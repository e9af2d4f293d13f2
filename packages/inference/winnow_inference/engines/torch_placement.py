"""Where and in which number format torch computes, and how arrays get there and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from winnow_inference.machine import usable_cores
from winnow_inference.sequences import Matrix
from winnow_rpc.faults import FailedPrecondition

if TYPE_CHECKING:
    import torch

# How far a result may move with its neighbours, by number format: the largest relative error of a row, in its length or
# 1, whichever is more. Kernels add up in another order when the batch has another shape. Measured on a CPU with
# all-MiniLM-L6-v2 and the shipped cross-encoder (6 layers): 1e-6, 1.4e-3 and 9e-3 in results, 2e-6, 2.7e-3 and 2.3e-2
# in single tokens; the rest is room for deeper models. What is wrong, and not rounded, is off by tenths.
_TOLERANCES = {"float32": 2e-5, "float16": 8e-3, "bfloat16": 6e-2}


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

    def because(self, why: str) -> Placement:
        """The same, with what led to it said first."""
        return self if not why or self.reason.startswith(why) else replace(self, reason=f"{why}; {self.reason}")

    @property
    def on_gpu(self) -> bool:
        """The device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def tolerance(self) -> float:
        """Relative error of a result that its neighbours, padding and the kernel may make, in this number format."""
        return _TOLERANCES[self.dtype]


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


class Disagreement(Exception):
    """Two ways to the same result differ by more than rounding."""


def check_agreement(found: torch.Tensor, expected: torch.Tensor, *, tolerance: float) -> None:
    """Raises Disagreement if a row of [rows, any] is off by more than `tolerance` of its length (of 1, if shorter).

    Waits for the device.
    """
    expected = expected.float()
    distances = (found.float() - expected).norm(dim=-1)
    error = float((distances / expected.norm(dim=-1).clamp(min=1)).max())
    if not error <= tolerance:  # NaN is no agreement either
        msg = f"results differ by {error:.1e}, more than {tolerance:.0e}"
        raise Disagreement(msg)


class Device:
    """A device in use: one stream of work, and the copies to it and from it.

    On a GPU copies start in page-locked memory and do not wait for each other; on a CPU nothing is copied at all.
    """

    def __init__(self, placement: Placement) -> None:
        import torch

        self.name = placement.device
        """As torch names it."""
        self._stream: torch.cuda.Stream | None = None
        if placement.on_gpu:
            # A stream of its own: CUDA captures no graph on the default one.
            self._stream = torch.cuda.Stream(self.name)  # type: ignore[no-untyped-call]
            # Whoever loaded the weights did it on the default stream, and may not have waited for it.
            self._stream.wait_stream(torch.cuda.default_stream(self.name))

    @contextmanager
    def active(self) -> Iterator[None]:
        """While it lasts, this thread computes here, without a record for gradients."""
        import torch

        with torch.inference_mode():
            if self._stream is None:
                yield
                return
            with torch.cuda.device(self.name), torch.cuda.stream(self._stream):
                yield

    def host_integers(self, shape: Sequence[int]) -> torch.Tensor:
        """Uninitialized int64 in host memory, from which `upload` is quick. Called on any thread."""
        import torch

        if self._stream is None:
            return torch.empty(*shape, dtype=torch.int64)
        # Page-locked memory belongs to a device's context; without this another thread would open one on GPU 0.
        with torch.cuda.device(self.name):
            return torch.empty(*shape, dtype=torch.int64, pin_memory=True)

    def upload(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, once the stream gets there. Inside `active`."""
        return host.to(self.name, non_blocking=True)

    def download(self, values: torch.Tensor) -> Matrix:
        """Float32 values in host memory, now: everything before them on the stream has ended."""
        import torch

        if self._stream is not None:
            host = torch.empty(values.shape, dtype=torch.float32, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            self._stream.synchronize()
        result: Matrix = values.numpy()
        return result

    def release_unused(self) -> None:
        """Gives memory that holds nothing now back to the device, for others and in one piece."""
        import torch

        if self._stream is not None:
            torch.cuda.empty_cache()
