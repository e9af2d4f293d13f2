"""CUDA graphs for small batches.

A forward pass of a single query is a few hundred kernels of a few microseconds each, and the host needs longer to
launch them than the GPU to run them. A graph, recorded once for a shape, is launched as a whole. Shapes are few: a
batch is filled up to the next one, which costs nothing where the GPU was waiting anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from winnow_rpc import telemetry

if TYPE_CHECKING:
    import torch

log = telemetry.get_logger("winnow.inference")

# Single queries, and the few that arrive while one runs.
_COUNTS = (1, 2, 4, 8)
_LENGTHS = (16, 32, 64, 128)
# Past about this many padded tokens the GPU has enough to do to hide the launches. From arithmetic, not measured: 512
# tokens of a 6-layer model of width 384 are 11 GFLOP, some 0.1 ms on a large GPU, against 0.5 ms and more of launches.
_MOST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class GraphShape:
    """A rectangle that a graph computes."""

    count: int
    """Sequences."""
    length: int
    """Tokens of each, padding included."""

    @property
    def tokens(self) -> int:
        """Padded tokens."""
        return self.count * self.length


def graph_shapes(longest: int) -> tuple[GraphShape, ...]:
    """The shapes worth a graph for a model that reads up to `longest` tokens, smallest first."""
    lengths = sorted({min(length, longest) for length in _LENGTHS})
    shapes = (GraphShape(count, length) for count in _COUNTS for length in lengths)
    return tuple(
        sorted(
            (shape for shape in shapes if shape.tokens <= _MOST_TOKENS),
            key=lambda shape: (shape.tokens, shape.count),
        )
    )


def smallest_that_holds(count: int, length: int, shapes: Sequence[GraphShape]) -> GraphShape | None:
    """The first of the shapes, which come smallest first, that a batch fits into."""
    return next((shape for shape in shapes if count <= shape.count and length <= shape.length), None)


class Capturer(Protocol):
    """Records what a function does on the device."""

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """Something that does it again, on whatever the same memory holds by then, and the tensor that it leaves its
        result in. Raises whatever stands in the way."""
        ...


class CudaCapturer:
    """Records CUDA graphs. All share one pool of memory, since one replays at a time and its result is read at once."""

    def __init__(self) -> None:
        import torch

        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """As `Capturer` says, on the current stream, which must not be the default one."""
        import torch

        stream = torch.cuda.current_stream()
        # Libraries allocate their workspaces and choose their kernels in the first passes; that cannot be recorded.
        for _ in range(2):
            compute()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": what other threads do meanwhile (page-locked memory for the next batch) is not our mistake.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            output = compute()
        return graph.replay, output


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph, where its input goes and where its result comes out."""

    features: torch.Tensor
    replay: Callable[[], None]
    output: torch.Tensor


class Graphs:
    """The graphs of one engine, all recorded when it is made: no query waits for that. Nothing is recorded later."""

    def __init__(
        self,
        shapes: Sequence[GraphShape],
        *,
        capturer: Capturer,
        compute: Callable[[torch.Tensor], torch.Tensor],
        examples: Callable[[GraphShape], Sequence[torch.Tensor]],
        check: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> None:
        """Inside the device's `active`.

        `compute` is the forward pass from int64 [features, count, length] on the device; `examples` makes two such
        inputs of a shape; `check` raises if a graph's result is not the model's. Whatever goes wrong, there are no
        graphs at all, and `obstacle` says why.
        """
        self._captured: dict[GraphShape, _Captured] = {}
        self.obstacle = ""
        """Why there are none; empty if there are."""
        try:
            # Largest first: the others then find room in the memory that it took.
            for shape in reversed(shapes):
                first, second = examples(shape)
                features = first.clone()
                replay, output = capturer.capture(lambda features=features: compute(features))  # type: ignore[misc]
                captured = _Captured(features, replay, output)
                # With another input than the one recorded: a graph that repeats itself would pass else.
                check(_replayed(captured, second), compute(second))
                self._captured[shape] = captured
        except Exception as error:  # libraries below raise anything; a model without graphs still serves
            self._captured.clear()
            self.obstacle = f"{type(error).__name__}: {error}".partition("\n")[0]
            log.warning("CUDA graphs are off", error=self.obstacle)

    @property
    def shapes(self) -> tuple[GraphShape, ...]:
        """Those that can be computed, smallest first."""
        return tuple(reversed(self._captured))

    def run(self, features: torch.Tensor) -> torch.Tensor:
        """The model's result for int64 [features, count, length] of one of the shapes, from the host or the device.

        It is overwritten by the next run.
        """
        return _replayed(self._captured[GraphShape(*features.shape[1:])], features)


def _replayed(captured: _Captured, features: torch.Tensor) -> torch.Tensor:
    captured.features.copy_(features, non_blocking=True)
    captured.replay()
    return captured.output
