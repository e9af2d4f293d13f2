"""The torch engine, for bi-encoders and cross-encoders, on the modules that sentence-transformers loaded.

The forward pass is the library's own, so pooling, normalisation and heads are whatever the model's folder says. On a
GPU the encoder's layers run without padding where that is possible, and small batches replay recorded CUDA graphs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from winnow_inference.engines.base import EngineDescription, EngineLost, Lanes
from winnow_inference.engines.torch_batch import (
    Packing,
    Part,
    PreparedBatch,
    feature_names,
    packing,
    padded,
    random_sequences,
)
from winnow_inference.engines.torch_graphs import (
    Capturer,
    CudaCapturer,
    Graphs,
    GraphShape,
    graph_shapes,
    smallest_that_holds,
)
from winnow_inference.engines.torch_placement import Device, Placement, check_agreement
from winnow_inference.engines.torch_unpadding import (
    CannotUnpad,
    Unpadding,
    VariableLengthAttention,
    attention_for,
    encoder_of,
    unpad,
)
from winnow_inference.models.facts import Padding
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_rpc import telemetry

if TYPE_CHECKING:
    import torch

log = telemetry.get_logger("winnow.inference")

# Lengths of the sequences that unpadding is tried on: one token, blocks of a kernel full and not, two alike.
_TRIAL_LENGTHS = (7, 64, 1, 23, 23, 100)
# What a model without any limit of its own is taken to read.
_UNLIMITED_READS = 8192


@dataclass(frozen=True, kw_only=True)
class Acceleration:
    """What a device has beyond plain forward passes. It changes speed and rounding, not meaning."""

    attention: VariableLengthAttention | None = None
    """Unpad with this attention; None: do not."""
    capturer: Capturer | None = None
    """Record graphs of small shapes with this; None: do not."""
    obstacle: str = ""
    """Why there is no attention, where one might be expected."""


def acceleration_for(placement: Placement) -> Acceleration:
    """What there is on a device: nothing on a CPU (`attention_for` says why)."""
    if not placement.on_gpu:
        return Acceleration()
    try:
        return Acceleration(attention=attention_for(placement), capturer=CudaCapturer())
    except CannotUnpad as obstacle:
        return Acceleration(capturer=CudaCapturer(), obstacle=str(obstacle))


class _TorchEngine:
    """What both kinds share: padding, the device, what makes it quick, and what its errors mean."""

    def __init__(
        self, module: Any, *, padding: Padding, placement: Placement, width: int, acceleration: Acceleration | None
    ) -> None:
        import torch

        self._module = module
        self._padding = padding
        self._placement = placement
        self._width = width
        self._unpadding: Unpadding | None = None
        self._graphs: Graphs | None = None
        self._reasons = [placement.reason]
        if placement.threads:
            torch.set_num_threads(placement.threads)
        self._device = Device(placement)
        self._accelerate(acceleration_for(placement) if acceleration is None else acceleration)

    @property
    def description(self) -> EngineDescription:
        """What it is."""
        place = self._placement
        return EngineDescription(
            name="torch",
            device=place.device,
            dtype=place.dtype,
            threads=place.threads,
            streams=self.lanes.count,
            reason="; ".join(self._reasons),
        )

    @property
    def width(self) -> int:
        """Numbers per sequence."""
        return self._width

    @property
    def lanes(self) -> Lanes:
        """One: a forward pass takes the whole device."""
        return Lanes(count=1, express=False)

    def prepare(self, batch: Sequence[TokenSequence]) -> PreparedBatch:
        """The batch in host memory, from where the device takes it; nothing waits for the device here."""
        return PreparedBatch(
            count=len(batch),
            parts=tuple(self._part(batch, rows, prompt_length) for prompt_length, rows in self._passes(batch)),
        )

    def run(self, prepared: PreparedBatch, lane: int) -> Matrix:
        """Float32 [sequences, width]; `lane` is 0.

        Raises EngineLost if the GPU cannot go on, and torch.OutOfMemoryError if this batch is too large for it.
        """
        import torch

        results = np.empty((prepared.count, self._width), dtype=np.float32)
        too_large: str | None = None
        try:
            with self._device.active():
                for part in prepared.parts:
                    rows = list(part.rows)
                    results[rows] = self._device.download(self._results(part))[: len(rows)]
        except torch.AcceleratorError as error:  # an illegal access and the like: the context is lost for good
            raise EngineLost(str(error)) from error
        except torch.OutOfMemoryError as error:
            too_large = str(error)
        if too_large is not None:
            # A new error, out here: the frames of the first one hold the very tensors that have to go.
            self._device.release_unused()
            raise torch.OutOfMemoryError(too_large)
        return results

    def close(self) -> None:
        """Lets go of the weights, and leaves the model as it was: another engine may be made of it."""
        import torch

        if self._unpadding is not None:
            self._unpadding.remove()
        self._unpadding = self._graphs = self._module = None
        with contextlib.suppress(torch.AcceleratorError):  # of a device that is gone
            self._device.release_unused()

    def _passes(self, batch: Sequence[TokenSequence]) -> list[tuple[int, list[int]]]:
        """The forward passes that a batch takes: each a prompt length that pooling leaves out, and rows."""
        return [(0, list(range(len(batch))))]

    def _forward(self, features: dict[str, Any]) -> torch.Tensor:
        """The model's results on the device, float32 [sequences, width]."""
        raise NotImplementedError

    def _part(self, batch: Sequence[TokenSequence], rows: Sequence[int], prompt_length: int) -> Part:
        chosen = [batch[row] for row in rows]
        lengths = [len(sequence) for sequence in chosen]
        shape: GraphShape | None = None
        # A graph holds the prompt length that it was recorded with, which is none.
        if self._graphs is not None and not prompt_length:
            shape = smallest_that_holds(len(rows), max(lengths), self._graphs.shapes)
        features = self._laid_out(chosen, shape)
        return Part(
            rows=tuple(rows),
            features=features,
            recorded=shape is not None,
            packing=self._packing(lengths, features.shape[2])
            if self._unpadding is not None and shape is None
            else None,
            prompt_length=prompt_length,
        )

    def _laid_out(self, batch: Sequence[TokenSequence], shape: GraphShape | None = None) -> torch.Tensor:
        return padded(
            batch,
            self._padding,
            allocate=self._device.host_integers,
            count=shape.count if shape else 0,
            length=shape.length if shape else 0,
        )

    def _packing(self, lengths: Sequence[int], width: int) -> Packing:
        return packing(lengths, width=width, left=self._padding.left, allocate=self._device.host_integers)

    def _results(self, part: Part) -> torch.Tensor:
        """What a part gives, on the device; a recorded one has rows too many."""
        if part.recorded and self._graphs is not None:
            return self._graphs.run(part.features)
        features = self._device.upload(part.features)
        if part.packing is None or self._unpadding is None:
            return self._compute(features, part.prompt_length)
        with self._unpadding.packed(part.packing.to(self._device.upload)):
            return self._compute(features, part.prompt_length)

    def _compute(self, features: torch.Tensor, prompt_length: int = 0) -> torch.Tensor:
        named: dict[str, Any] = dict(zip(feature_names(self._padding), features.unbind(0), strict=True))
        if prompt_length:
            named["prompt_length"] = prompt_length
        return self._forward(named)

    def _accelerate(self, chosen: Acceleration) -> None:
        """Takes what there is and does no harm. Raises EngineLost if the device did not survive the trial."""
        import torch

        if chosen.obstacle:
            self._reasons.append(f"padded: {chosen.obstacle}")
        if chosen.attention is None and chosen.capturer is None:
            return
        try:
            with self._device.active():
                if chosen.attention is not None:
                    self._unpad(chosen.attention)
                if chosen.capturer is not None:
                    self._record(chosen.capturer)
                # Whatever went wrong above was survived, if this works.
                self._device.download(self._compute(self._example([1], GraphShape(1, 1))))
        except Exception as error:
            self.close()  # nobody else can: there is no engine yet
            if isinstance(error, torch.AcceleratorError):
                raise EngineLost(str(error)) from error
            raise

    def _unpad(self, attention: VariableLengthAttention) -> None:
        lengths = [min(length, self._longest) for length in _TRIAL_LENGTHS]
        features = self._example(lengths)
        try:
            self._unpadding = unpad(
                encoder_of(self._module),
                attention,
                compute=lambda: self._compute(features),
                packing=self._packing(lengths, features.shape[2]).to(self._device.upload),
                check=self._check,
            )
        except CannotUnpad as obstacle:
            log.info("batches stay padded", why=str(obstacle))
            self._reasons.append(f"padded: {obstacle}")
        else:
            self._reasons.append("unpadded")

    def _record(self, capturer: Capturer) -> None:
        self._graphs = Graphs(
            graph_shapes(self._longest),
            capturer=capturer,
            compute=self._compute,
            examples=lambda shape: (
                self._example([shape.length] * shape.count),
                self._example([max(1, shape.length - 5 * row - 3) for row in range(shape.count)], shape, seed=1),
            ),
            check=self._check,
        )
        recorded = len(self._graphs.shapes)
        self._reasons.append(
            f"{recorded} CUDA graphs for small batches" if recorded else f"no CUDA graphs: {self._graphs.obstacle}"
        )

    def _check(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        check_agreement(found, expected, tolerance=self._placement.tolerance)

    def _example(self, lengths: Sequence[int], shape: GraphShape | None = None, seed: int = 0) -> torch.Tensor:
        # Id 0 is in every vocabulary, should a model not tell the size of its own.
        vocabulary = int(getattr(self._module[0].model.config, "vocab_size", 0) or 1)
        return self._device.upload(self._laid_out(random_sequences(lengths, vocabulary=vocabulary, seed=seed), shape))

    @property
    def _longest(self) -> int:
        return positions_of(self._module[0].model)


def positions_of(transformer: Any) -> int:
    """Tokens that a model has positions for."""
    limits = [int(getattr(transformer.config, "max_position_embeddings", 0) or 0)]
    for name, part in transformer.named_modules():
        if name.endswith("position_embeddings") and hasattr(part, "num_embeddings"):
            # RoBERTa and its kin count positions from after the padding index.
            limits.append(part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1))
    return min((limit for limit in limits if limit > 0), default=_UNLIMITED_READS)


class TorchBiEncoder(_TorchEngine):
    """Vectors of a sentence-transformers bi-encoder."""

    def __init__(
        self,
        module: Any,
        *,
        padding: Padding,
        placement: Placement,
        width: int,
        prompt_is_pooled: bool,
        acceleration: Acceleration | None = None,
    ) -> None:
        """`acceleration` None: what the device has."""
        self._prompt_is_pooled = prompt_is_pooled
        super().__init__(module, padding=padding, placement=placement, width=width, acceleration=acceleration)

    def _passes(self, batch: Sequence[TokenSequence]) -> list[tuple[int, list[int]]]:
        if self._prompt_is_pooled:
            return super()._passes(batch)
        # Pooling takes one prompt length a pass; queries and passages may have met in this batch.
        rows: dict[int, list[int]] = {}
        for row, sequence in enumerate(batch):
            rows.setdefault(sequence.prompt_length, []).append(row)
        return sorted(rows.items())

    def _forward(self, features: dict[str, Any]) -> torch.Tensor:
        # A model may be stored with a truncation of its vectors; then `width` is less than what the modules give.
        vectors: torch.Tensor = self._module(features)["sentence_embedding"][:, : self._width]
        return vectors.float()


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
        acceleration: Acceleration | None = None,
    ) -> None:
        """`acceleration` None: what the device has."""
        self._activation = activation
        super().__init__(module, padding=padding, placement=placement, width=width, acceleration=acceleration)

    def _forward(self, features: dict[str, Any]) -> torch.Tensor:
        # In float32 before the activation, or half precision would make ties of close scores.
        scores: torch.Tensor = self._module(features)["scores"].float()
        if self._activation is not None:
            scores = self._activation(scores)
        return scores.float().reshape(-1, self._width)
