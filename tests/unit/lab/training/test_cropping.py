"""Padding that is left out changes nothing but the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from winnow_lab.training.cropping import cropped
from winnow_lab.training.settings import Architecture
from winnow_lab.training.starting import load_start, set_dropout

TEXTS = ["red", "the river and the sea " * 4, "bread and cheese", "what is the capital of france ?", "tea " * 9]


def features(model: Any, architecture: Architecture) -> dict[str, Any]:
    texts = TEXTS if architecture is Architecture.BI_ENCODER else [("what is it ?", text) for text in TEXTS]
    return dict(model.preprocess(texts))


@pytest.mark.parametrize("architecture", Architecture)
@pytest.mark.parametrize("chunk_tokens", [1, 40, 4096])
def test_outputs_and_gradients_are_those_of_the_padded_batch(
    architecture: Architecture, chunk_tokens: int, bi_encoder: Path, cross_encoder: Path
) -> None:
    bi = architecture is Architecture.BI_ENCODER
    model = load_start(architecture, bi_encoder if bi else cross_encoder)
    set_dropout(model, 0.0)
    name = "sentence_embedding" if bi else "scores"

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        output = model(features(model, architecture))[name]
        (output * torch.arange(1, len(TEXTS) + 1)[:, None]).sum().backward()
        return output.detach(), [each.grad.clone() for each in model.parameters() if each.grad is not None]

    padded, gradients = run()
    with cropped(model, chunk_tokens=chunk_tokens):
        output, others = run()
    assert torch.allclose(output, padded, atol=1e-5)
    assert len(gradients) == len(others) > 0
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(gradients, others, strict=True))


def test_a_padded_batch_is_computed_as_short_ones_and_the_model_is_itself_again(cross_encoder: Path) -> None:
    model = load_start(Architecture.CROSS_ENCODER, cross_encoder)
    seen: list[torch.Size] = []
    whole = model[0].forward
    model[0].forward = lambda features, **options: (seen.append(features["input_ids"].shape), whole(features))[1]
    names = set(model.state_dict())
    with cropped(model, chunk_tokens=30):
        model(features(model, Architecture.CROSS_ENCODER))
        assert set(model.state_dict()) == names, "what is saved meanwhile has the names that it always has"
    assert len(seen) > 1
    assert sum(rows for rows, _ in seen) == len(TEXTS)
    assert all(rows == 1 or rows * tokens <= 30 for rows, tokens in seen)
