"""What nobody reads of a last layer is not computed, and nothing else changes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from torch import nn
from torch.nn import functional

from winnow_inference.engines.openvino_narrowing import keep_in_float32, narrow_to_first_token

WIDTH, HEADS = 8, 2


class Layer(nn.Module):
    """One encoder layer, its attention by the fused operator or written out."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:-1], -1, WIDTH // HEADS).transpose(1, 2)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            mixed = torch.softmax(query @ key.transpose(2, 3) / 2.0 + mask, dim=-1) @ value
        mixed = mixed.transpose(1, 2).flatten(2)
        x = self.first(x + self.out(mixed))
        return self.second(x + self.down(functional.gelu(self.up(x))))


class Model(nn.Module):
    """Two layers and a head that reads the states in one way or another."""

    def __init__(self, reads: str, *, fused: bool = True) -> None:
        super().__init__()
        self.reads = reads
        self.layers = nn.ModuleList([Layer(fused=fused), Layer(fused=fused)])
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        wide = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        for layer in self.layers:
            x = layer(x, wide)
        read = {"first": lambda: x[:, 0], "mean": lambda: x.mean(dim=1), "both": lambda: x[:, 0] + x.mean(dim=1)}
        return torch.tanh(self.head(read[self.reads]()))


def converted(reads: str, *, fused: bool = True) -> Any:
    with torch.random.fork_rng(), torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the tracer that OpenVINO uses
        torch.manual_seed(3)
        model = openvino.convert_model(
            Model(reads, fused=fused).eval(), example_input=(torch.ones(2, 5, WIDTH), torch.zeros(2, 5))
        )
    for given, shape in zip(model.inputs, ([-1, -1, WIDTH], [-1, -1]), strict=True):
        given.get_node().set_partial_shape(openvino.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    return model


def results(model: Any) -> Any:
    generator = np.random.default_rng(7)
    states = generator.normal(size=(3, 6, WIDTH)).astype(np.float32)
    mask = np.where(np.arange(6) < np.array([[6], [4], [1]]), 0.0, -1e4).astype(np.float32)
    program = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return program([states, mask])[0]


def lengths_of_products(model: Any) -> list[str]:
    """The token axis of each product with weights, in the order of computation: "..1" (at most one) or "?"."""
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [
        str(node.output(0).get_partial_shape()[1])
        for node in products
        if node.input_value(1).get_node().get_type_name() == "Constant" and len(node.output(0).get_partial_shape()) == 3
    ]


@pytest.mark.parametrize("fused", [True, False])
def test_a_head_on_the_first_token_leaves_only_keys_and_values_of_the_last_layer_for_all_tokens(fused: bool) -> None:
    model = converted("first", fused=fused)
    before = results(model)
    assert lengths_of_products(model) == ["?"] * 12

    assert narrow_to_first_token(model)

    assert sorted(lengths_of_products(model)) == ["..1"] * 4 + ["?"] * 8
    np.testing.assert_allclose(results(model), before, atol=1e-6)


@pytest.mark.parametrize("reads", ["mean", "both"])
def test_a_head_that_reads_all_tokens_keeps_them(reads: str) -> None:
    model = converted(reads)
    before = results(model)

    narrow_to_first_token(model)

    assert lengths_of_products(model) == ["?"] * 12
    np.testing.assert_allclose(results(model), before, atol=1e-6)


def test_marks_are_written_into_the_file_and_the_file_can_still_be_read(tmp_path: Path) -> None:
    model = converted("first")
    before = results(model)
    narrowed = narrow_to_first_token(model)
    file = tmp_path / "model.xml"
    openvino.save_model(model, file, compress_to_fp16=False)

    keep_in_float32(file, narrowed)

    read = openvino.Core().read_model(file)
    marked = {
        node.get_friendly_name()
        for node in read.get_ordered_ops()
        if any("Precision" in name or "precise" in name for name in node.get_rt_info())
    }
    assert marked == narrowed
    np.testing.assert_allclose(results(read), before, atol=1e-6)
