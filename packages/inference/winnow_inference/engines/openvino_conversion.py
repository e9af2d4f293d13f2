"""From a model that sentence-transformers loaded to an OpenVINO file, and from that to one in int8."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from winnow_inference.engines.openvino_narrowing import keep_in_float32, narrow_to_first_token
from winnow_inference.engines.padding import Arrays
from winnow_inference.engines.torch_batch import feature_names
from winnow_inference.models.facts import BiEncoderFacts, FactsT

if TYPE_CHECKING:
    from winnow_inference.models.loading import LoadedModel

# Moves the difficulty of outliers from activations to weights before quantising (Xiao et al. 2022, SmoothQuant). Of the
# strengths tried on all-MiniLM-L6-v2, 0.8 kept most: cosine to float32 0.9975 on average against 0.9959 with the
# default.
_SMOOTHING = 0.8

# OpenVINO's converter and NNCF report their use to their makers unless they believe to run on a build machine.
_SENDS_NOTHING = {"CI": "true", "NNCF_CI": "1"}


class NotConvertible(Exception):
    """The model cannot be computed by this engine; the message says why, for a person."""


def convert(loaded: LoadedModel[FactsT], file: Path) -> None:
    """Writes the model, from token ids to the results that it gives, in float32. Raises NotConvertible."""
    import openvino
    import torch

    facts, module, activation = loaded.facts, loaded.module, loaded.activation
    if (
        isinstance(facts, BiEncoderFacts)
        and not facts.prompt_is_pooled
        and (facts.query_prompt or facts.passage_prompt)
    ):
        raise NotConvertible("its pooling leaves out the prompt, which differs from text to text")
    names = feature_names(facts.padding)

    class Whole(torch.nn.Module):
        """The library's model as one function of tensors."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            """Results [sequences, width]."""
            outputs = self.module(dict(zip(names, tensors, strict=True)))
            if isinstance(facts, BiEncoderFacts):
                vectors: torch.Tensor = outputs["sentence_embedding"][:, : facts.width]
                return vectors
            scores = outputs["scores"].float()
            scores = scores if activation is None else activation(scores)
            results: torch.Tensor = scores.reshape(-1, facts.width)
            return results

    example = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in names)
    try:
        with _quiet(), torch.inference_mode():
            model = openvino.convert_model(Whole().eval(), example_input=example)
            for given, name in zip(model.inputs, names, strict=True):
                given.get_tensor().set_names({name})
                given.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
            model.validate_nodes_and_infer_types()
        narrowed = narrow_to_first_token(model)
        # The weights as they are: compressed to fp16 they would be others.
        openvino.save_model(model, file, compress_to_fp16=False)
        keep_in_float32(file, narrowed)
    except Exception as error:  # the tracer and the converter may raise anything of a model that they do not understand
        raise NotConvertible(f"OpenVINO does not understand it ({type(error).__name__})") from error


def quantize(source: Path, target: Path, calibration: Sequence[Arrays]) -> None:
    """Writes the model with its matrix products in int8, ranges taken from `calibration`. Raises NotConvertible."""
    try:
        with _quiet():
            import nncf
    except ImportError as error:
        raise NotConvertible("int8 needs the package nncf (the extra `int8` of winnow-inference)") from error
    import openvino

    try:
        with _quiet():
            model = nncf.quantize(
                openvino.Core().read_model(source),
                nncf.Dataset(list(calibration)),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING)
                ),
            )
        openvino.save_model(model, target, compress_to_fp16=False)
    except Exception as error:
        raise NotConvertible(f"it could not be quantised ({type(error).__name__})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converters draw progress bars, warn of what is checked here, and would call home."""
    before = {name: os.environ.get(name) for name in _SENDS_NOTHING}
    os.environ.update(_SENDS_NOTHING)
    levels = {name: logging.getLogger(name).level for name in ("nncf", "openvino")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_available() -> bool:
    """OpenVINO is installed."""
    import importlib.util

    return importlib.util.find_spec("openvino") is not None
