"""Tiny models of several architectures, the torch engines over them, and ways to make those quick without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from winnow_inference.engines.torch_engines import Acceleration, TorchBiEncoder, TorchCrossEncoder
from winnow_inference.engines.torch_placement import place
from winnow_inference.engines.torch_unpadding import attention_by_runs
from winnow_inference.models.facts import Padding
from winnow_inference.sequences import Matrix, TokenSequence

DTYPES = ["float32", "float16", "bfloat16"]
PADDING = Padding(token_id=0, segment_id=0, left=False, segments=True)
# Special tokens come first in the tiny vocabularies.
IDS = np.arange(5, 60)
LENGTHS = [3, 17, 40, 9, 1, 64, 17, 25, 12, 17]


class Rerun:
    """Records by remembering what to call: what CUDA graphs do, without CUDA."""

    def __init__(self) -> None:
        self.replays = 0

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        output = compute()

        def replay() -> None:
            self.replays += 1
            output.copy_(compute())

        return replay, output


class NoCapture:
    """A device that cannot record."""

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        raise RuntimeError("capture is not supported")


ACCELERATIONS: dict[str, Callable[[], Acceleration | None]] = {
    "plain": lambda: None,
    "unpadded": lambda: Acceleration(attention=attention_by_runs),
    "recorded": lambda: Acceleration(capturer=Rerun()),
    "both": lambda: Acceleration(attention=attention_by_runs, capturer=Rerun()),
}


def config(name: str, **more: Any) -> Any:
    import transformers

    shape = {
        "vocab_size": 120,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
        # Wide weights, or all texts would be nearly equal.
        "initializer_range": 0.5,
    }
    return getattr(transformers, name)(**{**shape, **more})


DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", {}),
    "roberta": ("RobertaModel", "RobertaConfig", {"type_vocab_size": 2}),
    "distilbert": ("DistilBertModel", "DistilBertConfig", DISTIL),
    "modernbert": ("ModernBertModel", "ModernBertConfig", {"global_attn_every_n_layers": 2, "local_attention": 4}),
    "minilm-score": ("BertForSequenceClassification", "BertConfig", {"num_labels": 1}),
    "minilm-labels": ("BertForSequenceClassification", "BertConfig", {"num_labels": 3}),
    "roberta-score": ("RobertaForSequenceClassification", "RobertaConfig", {"num_labels": 1, "type_vocab_size": 2}),
    "distilbert-labels": ("DistilBertForSequenceClassification", "DistilBertConfig", {**DISTIL, "num_labels": 3}),
}
UNPADDABLE = [name for name in MODELS if name != "modernbert"]
CROSS = [name for name in MODELS if "-" in name]


def engine_of(
    name: str, folder: Path, *, dtype: str = "float32", device: str = "cpu", acceleration: Acceleration | None = None
) -> TorchBiEncoder | TorchCrossEncoder:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    placement = replace(place(device=device, dtype=dtype, threads=1), reason="told so")
    kind: Any = CrossEncoder if name in CROSS else SentenceTransformer
    module = kind(str(folder), device=device, model_kwargs={"dtype": placement.torch_dtype}).eval()
    padding = replace(PADDING, segments=name == "bert" or "minilm" in name)
    if name in CROSS:
        return TorchCrossEncoder(
            module,
            padding=padding,
            placement=placement,
            width=module.num_labels,
            activation=module.activation_fn,
            acceleration=acceleration,
        )
    return TorchBiEncoder(
        module, padding=padding, placement=placement, width=16, prompt_is_pooled=True, acceleration=acceleration
    )


def sequences(lengths: Sequence[int], seed: int = 3) -> list[TokenSequence]:
    random = np.random.default_rng(seed)
    return [
        TokenSequence(
            random.choice(IDS, size=length).astype(np.int32),
            (np.arange(length) > length // 2).astype(np.int32),
        )
        for length in lengths
    ]


def computed(engine: Any, batch: Sequence[TokenSequence]) -> Matrix:
    rows: Matrix = engine.run(engine.prepare(batch), 0)
    assert rows.dtype == np.float32
    assert rows.shape == (len(batch), engine.width)
    return rows


def close(found: Matrix, expected: Matrix, tolerance: float) -> bool:
    lengths = np.maximum(np.linalg.norm(expected, axis=1), 1)
    return bool((np.linalg.norm(found - expected, axis=1) / lengths).max() <= tolerance)
