"""The torch engine, for bi-encoders and cross-encoders, on the modules that sentence-transformers loaded.

The forward pass is the library's own, so pooling, normalisation and heads are whatever the model's folder says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from winnow_inference.engines.base import EngineDescription, EngineLost
from winnow_inference.engines.torch_batch import Padding, padded
from winnow_inference.engines.torch_placement import Placement
from winnow_inference.sequences import Matrix, TokenSequence


class _TorchEngine:
    """What both kinds share: padding, the device, and what its errors mean."""

    def __init__(self, module: Any, *, padding: Padding, placement: Placement, width: int) -> None:
        import torch

        self._module = module
        self._padding = padding
        self._placement = placement
        self._width = width
        if placement.threads:
            torch.set_num_threads(placement.threads)

    @property
    def description(self) -> EngineDescription:
        """What it is."""
        place = self._placement
        return EngineDescription(
            name="torch", device=place.device, dtype=place.dtype, threads=place.threads, reason=place.reason
        )

    @property
    def width(self) -> int:
        """Numbers per sequence."""
        return self._width

    def run(self, batch: Sequence[TokenSequence]) -> Matrix:
        """Float32 [len(batch), width]. Raises EngineLost if the GPU cannot go on."""
        import torch

        features = padded(batch, self._padding, self._placement.device)
        try:
            with torch.inference_mode():
                return self._forward(features, batch)
        except torch.AcceleratorError as error:  # an illegal access and the like: the context is lost for good
            raise EngineLost(str(error)) from error

    def close(self) -> None:
        """Lets go of the weights."""
        self._module = None

    def _forward(self, features: dict[str, Any], batch: Sequence[TokenSequence]) -> Matrix:
        raise NotImplementedError


class TorchBiEncoder(_TorchEngine):
    """Vectors of a sentence-transformers bi-encoder."""

    def __init__(
        self, module: Any, *, padding: Padding, placement: Placement, width: int, prompt_is_pooled: bool
    ) -> None:
        super().__init__(module, padding=padding, placement=placement, width=width)
        self._prompt_is_pooled = prompt_is_pooled

    def _forward(self, features: dict[str, Any], batch: Sequence[TokenSequence]) -> Matrix:
        if self._prompt_is_pooled:
            return self._vectors(features)
        # Pooling takes one prompt length a batch; queries and passages may have met in this one.
        results = np.empty((len(batch), self._width), dtype=np.float32)
        for length in sorted({sequence.prompt_length for sequence in batch}):
            rows = [row for row, sequence in enumerate(batch) if sequence.prompt_length == length]
            part = {name: values[rows] for name, values in features.items()}
            results[rows] = self._vectors({**part, "prompt_length": length})
        return results

    def _vectors(self, features: dict[str, Any]) -> Matrix:
        # A model may be stored with a truncation of its vectors; then `width` is less than what the modules give.
        return _to_float32(self._module(features)["sentence_embedding"][:, : self._width])


class TorchCrossEncoder(_TorchEngine):
    """Scores of a sentence-transformers cross-encoder, after its own activation function."""

    def __init__(
        self,
        module: Any,
        *,
        padding: Padding,
        placement: Placement,
        width: int,
        activation: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(module, padding=padding, placement=placement, width=width)
        self._activation = activation

    def _forward(self, features: dict[str, Any], batch: Sequence[TokenSequence]) -> Matrix:
        # In float32 before the activation, or half precision would make ties of close scores.
        scores = self._module(features)["scores"].float()
        if self._activation is not None:
            scores = self._activation(scores)
        return _to_float32(scores.reshape(len(batch), self._width))


def _to_float32(values: Any) -> Matrix:
    result: Matrix = values.float().cpu().numpy()
    return result
