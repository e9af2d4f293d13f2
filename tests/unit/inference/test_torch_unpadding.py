from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow_inference.engines.torch_batch import Packing, packing
from winnow_inference.engines.torch_placement import Disagreement, Placement, check_agreement
from winnow_inference.engines.torch_unpadding import (
    CannotUnpad,
    Encoder,
    Unpadding,
    attention_by_runs,
    attention_for,
    encoder_of,
    flash_attention,
    flash_obstacle,
    unpad,
)

VOCABULARY = 50
LENGTHS = (5, 12, 1, 7, 7)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    # Wide weights, or attention would be nearly even and a wrong one nearly right.
    "initializer_range": 0.5,
}


def host(shape: Any) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.int64)


def packing_of(lengths: Any, *, width: int = 0, left: bool = False) -> Packing:
    return packing(lengths, width=width or max(lengths), left=left, allocate=host).to(lambda tensor: tensor)


def transformer(name: str, **more: Any) -> Any:
    """A tiny model of transformers, in evaluation mode: the class of that name with random weights."""
    import transformers

    kind = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(kind.config_class(**{**SHAPE, **more})).eval()


def in_module(model: Any) -> Any:
    """As sentence-transformers holds it: the first module's `model`."""
    return [SimpleNamespace(model=model)]


def strict(found: torch.Tensor, expected: torch.Tensor) -> None:
    check_agreement(found, expected, tolerance=2e-5)


class Trial:
    """A model and an example."""

    def __init__(self, model: Any, *, left: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = model
        self.packing = packing_of(LENGTHS, left=left)
        mask = torch.zeros(len(LENGTHS) * max(LENGTHS), dtype=torch.int64)
        mask[self.packing.positions] = 1
        self.mask = mask.view(len(LENGTHS), max(LENGTHS))
        # No id of padding among the real ones: RoBERTa takes positions from the ids.
        self.ids = torch.randint(2, VOCABULARY, self.mask.shape, generator=generator) * self.mask + (1 - self.mask)

    def __call__(self) -> torch.Tensor:
        with torch.inference_mode():
            output = self.model(input_ids=self.ids, attention_mask=self.mask)
        if "logits" in output:
            return output.logits  # type: ignore[no-any-return]
        # Mean of the real tokens, so that padding, which may hold anything, does not count.
        weights = self.mask[..., None].float()
        return (output.last_hidden_state.float() * weights).sum(1) / weights.sum(1)  # type: ignore[no-any-return]

    def unpad(self, attention: Any = attention_by_runs) -> Any:
        return unpad(encoder_of(in_module(self.model)), attention, compute=self, packing=self.packing, check=strict)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[int], int, bool]:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    return lengths, max(lengths) + draw(st.integers(0, 3)), draw(st.booleans())


@given(batches())
@settings(max_examples=60)
def test_a_packing_names_exactly_the_real_tokens_in_order(batch: tuple[list[int], int, bool]) -> None:
    lengths, width, left = batch
    found = packing_of(lengths, width=width, left=left)
    expected = [
        row * width + at + (width - length if left else 0) for row, length in enumerate(lengths) for at in range(length)
    ]
    assert found.positions.tolist() == expected
    assert found.boundaries.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]
    assert found.boundaries.dtype == torch.int32
    assert (found.lengths, found.longest) == (tuple(lengths), max(lengths))


def test_attention_by_runs_is_attention_within_each_sequence() -> None:
    lengths = (3, 3, 1, 5, 2, 2)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(3))
    found = attention_by_runs(query, key, value, packing=packing_of(lengths), scale=0.3)
    begin = 0
    for length in lengths:
        span = slice(begin, begin + length)
        weights = torch.einsum("qhd,khd->hqk", query[span], key[span]).mul(0.3).softmax(-1)
        torch.testing.assert_close(found[span], torch.einsum("hqk,khd->qhd", weights, value[span]))
        begin += length


ENCODERS: list[tuple[str, dict[str, Any]]] = [
    ("BertModel", {}),
    ("BertForSequenceClassification", {"num_labels": 1}),
    ("BertForSequenceClassification", {"num_labels": 3}),
    ("RobertaModel", {}),
    ("RobertaForSequenceClassification", {"num_labels": 3}),
    ("XLMRobertaForSequenceClassification", {"num_labels": 1}),
    ("CamembertModel", {}),
    ("ElectraForSequenceClassification", {"num_labels": 1, "embedding_size": 8}),
    ("AlbertModel", {"embedding_size": 8}),
    ("DistilBertModel", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    ("DistilBertForSequenceClassification", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
]


@pytest.mark.parametrize(("name", "more"), ENCODERS, ids=[f"{name}{len(more)}" for name, more in ENCODERS])
def test_an_encoder_without_padding_gives_what_it_gave_with_it(name: str, more: dict[str, Any]) -> None:
    trial = Trial(transformer(name, **more))
    expected = trial()
    unpadding = trial.unpad()
    with unpadding.packed(trial.packing):
        strict(trial(), expected)
    strict(trial(), expected)  # padded again, by the attention that stayed


def test_layers_never_see_padding_while_packed_and_see_it_otherwise() -> None:
    trial = Trial(transformer("BertModel"))
    unpadding = trial.unpad()
    seen: list[tuple[int, ...]] = []
    trial.model.encoder.layer[0].register_forward_pre_hook(lambda _layer, args: seen.append(tuple(args[0].shape)))
    with unpadding.packed(trial.packing):
        trial()
    trial()
    assert seen == [(1, sum(LENGTHS), 16), (len(LENGTHS), max(LENGTHS), 16)]


def test_padding_on_the_left_is_dropped_too() -> None:
    trial = Trial(transformer("DistilBertModel", dim=16, n_layers=2, n_heads=2, hidden_dim=32), left=True)
    expected = trial()
    with trial.unpad().packed(trial.packing):
        strict(trial(), expected)


def test_positions_of_padding_hold_zeros_afterwards() -> None:
    trial = Trial(transformer("BertModel"))
    with trial.unpad().packed(trial.packing), torch.inference_mode():
        hidden = trial.model(input_ids=trial.ids, attention_mask=trial.mask).last_hidden_state
    assert not hidden[trial.mask == 0].any()


def test_a_model_is_as_it_was_once_unpadding_is_removed() -> None:
    trial = Trial(transformer("BertModel"))
    expected = trial()
    names = list(trial.model.state_dict())
    unpadding = trial.unpad()
    unpadding.remove()
    assert trial.model.config._attn_implementation == "sdpa"
    assert not trial.model.encoder._forward_hooks
    assert not trial.model.encoder._forward_pre_hooks
    assert list(trial.model.state_dict()) == names
    assert torch.equal(trial(), expected)


def leaking(query: Any, key: Any, value: Any, *, packing: Any, scale: float | None) -> torch.Tensor:
    """Attention that sees the neighbours."""
    everything = packing_of((sum(packing.lengths),))
    return attention_by_runs(query, key, value, packing=everything, scale=scale)


def failing(query: Any, key: Any, value: Any, *, packing: Any, scale: float | None) -> torch.Tensor:
    raise RuntimeError("no kernel for this head size\nand a long trace")


def not_a_number(query: Any, key: Any, value: Any, *, packing: Any, scale: float | None) -> torch.Tensor:
    return torch.full_like(query, float("nan"))


@pytest.mark.parametrize(
    ("attention", "why"),
    [
        (leaking, r"Disagreement: results differ by \d"),
        (failing, r"RuntimeError: no kernel for this head size$"),
        (not_a_number, r"differ by nan"),
    ],
)
def test_attention_that_is_wrong_is_found_out_and_leaves_no_trace(attention: Any, why: str) -> None:
    trial = Trial(transformer("BertForSequenceClassification", num_labels=1))
    expected = trial()
    with pytest.raises(CannotUnpad, match=why):
        trial.unpad(attention)
    assert trial.model.config._attn_implementation == "sdpa"
    assert torch.equal(trial(), expected)


def test_hidden_states_are_compared_even_where_the_head_hides_the_difference() -> None:
    model = transformer("BertForSequenceClassification", num_labels=1)
    model.classifier.weight.data.zero_()
    with pytest.raises(CannotUnpad, match="differ"):
        Trial(model).unpad(leaking)


def test_a_model_whose_head_looks_at_padding_is_not_unpadded() -> None:
    trial = Trial(transformer("BertModel"))

    def mean_of_all() -> torch.Tensor:
        with torch.inference_mode():
            hidden = trial.model(input_ids=trial.ids, attention_mask=trial.mask).last_hidden_state
        result: torch.Tensor = hidden.mean(1)
        return result

    with pytest.raises(CannotUnpad, match="differ"):
        unpad(
            encoder_of(in_module(trial.model)),
            attention_by_runs,
            compute=mean_of_all,
            packing=trial.packing,
            check=strict,
        )


def test_a_model_that_goes_around_its_encoder_is_not_unpadded() -> None:
    model = transformer("BertModel")
    with pytest.raises(CannotUnpad, match="through the encoder 0 times"):
        unpad(
            encoder_of(in_module(model)),
            attention_by_runs,
            compute=lambda: torch.zeros(len(LENGTHS), 1),
            packing=packing_of(LENGTHS),
            check=strict,
        )
    assert not model.encoder._forward_hooks


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("BertModel", {"is_decoder": True}, "is a decoder"),
    ("GPT2Model", {"n_embd": 16, "n_head": 2, "n_layer": 1}, "no encoder of its own|is a decoder"),
    ("MPNetModel", {}, "attention in a way of its own"),
    ("DebertaV2Model", {}, "attention in a way of its own"),
    ("ModernBertModel", {"pad_token_id": 0}, "no encoder of its own"),
    (
        "T5EncoderModel",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
        "decoder|its own|passes",
    ),
    ("EsmModel", {"position_embedding_type": "rotary", "pad_token_id": 0, "mask_token_id": 1}, "rotary positions"),
    ("BertModel", {"output_hidden_states": True}, "more than its last hidden states"),
]


@pytest.mark.parametrize(("name", "more", "why"), REFUSED, ids=[f"{name}-{len(more)}" for name, more, _ in REFUSED])
def test_a_model_of_another_build_is_refused_with_a_reason(name: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotUnpad, match=why):
        encoder_of(in_module(transformer(name, **more)))


def test_a_model_with_an_attention_of_the_users_choice_keeps_it() -> None:
    model = transformer("BertModel")
    model.set_attn_implementation("eager")
    with pytest.raises(CannotUnpad, match="uses eager attention"):
        encoder_of(in_module(model))


class LayersWithBias(torch.nn.Module):
    """An encoder that adds a bias by distance in its attention, as MPNet and T5 do."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, hidden_states: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        from transformers import AttentionInterface

        attend: Any = AttentionInterface._global_mapping[self.config._attn_implementation]
        heads = hidden_states.view(*hidden_states.shape[:2], 2, -1).transpose(1, 2)
        bias = torch.zeros(1, 2, heads.shape[2], heads.shape[2])
        self.is_causal = False
        out, _ = attend(self, heads, heads, heads, attention_mask, position_bias=bias, **kwargs)
        return SimpleNamespace(last_hidden_state=out.flatten(2))


def test_a_bias_by_distance_is_refused_when_it_shows() -> None:
    config = SimpleNamespace(_attn_implementation="sdpa")
    layers = LayersWithBias(config)
    batch = torch.randn(len(LENGTHS), max(LENGTHS), 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CannotUnpad, match="attention with position_bias cannot be packed"):
        unpad(
            Encoder(layers, config),
            attention_by_runs,
            compute=lambda: layers(batch).last_hidden_state.mean(1),
            packing=packing_of(LENGTHS),
            check=strict,
        )


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"on_gpu": False}, "for a CPU"),
        ({"dtype": "float32"}, "in float32"),
        ({"built": False}, "this build of torch"),
        ({"capability": (7, 5)}, r"capability 7\.5"),
        ({"capability": (7, 5), "amd": True}, ""),
        ({"dtype": "bfloat16"}, ""),
        ({}, ""),
    ],
)
def test_the_kernel_needs_an_ampere_gpu_half_precision_and_a_build_that_has_it(case: dict[str, Any], why: str) -> None:
    usual: dict[str, Any] = {"on_gpu": True, "dtype": "float16", "built": True, "capability": (9, 0)}
    found = flash_obstacle(**{**usual, **case})
    assert re.search(why, found) if why else not found


def test_a_cpu_gets_no_unpadding() -> None:
    with pytest.raises(CannotUnpad, match="for a CPU"):
        attention_for(Placement(device="cpu", dtype="bfloat16", threads=1, reason=""))


def test_results_agree_within_the_tolerance_of_their_length_or_of_one() -> None:
    long, short = torch.tensor([[300.0, 400.0]]), torch.tensor([[1e-4, 0.0]])
    check_agreement(long + 3.0, long, tolerance=0.01)
    check_agreement(short + 0.005, short, tolerance=0.01)
    with pytest.raises(Disagreement, match=r"1\.4e-02, more than 1e-02"):
        check_agreement(long + 5.0, long, tolerance=0.01)


def test_the_kernel_is_called_as_this_build_of_torch_defines_it() -> None:
    # Tensors without memory: shapes and signatures are checked, no kernel runs.
    model = transformer("BertModel").to("meta").half()
    unpadding = Unpadding(encoder_of(in_module(model)), flash_attention)
    seen: list[tuple[int, ...]] = []
    model.encoder.layer[1].register_forward_hook(lambda _layer, _args, output: seen.append(tuple(output.shape)))
    ids = torch.ones(len(LENGTHS), max(LENGTHS), dtype=torch.int64, device="meta")
    with torch.inference_mode(), unpadding.packed(packing_of(LENGTHS).to(lambda tensor: tensor.to("meta"))):
        hidden = model(input_ids=ids, attention_mask=ids).last_hidden_state
    assert seen == [(1, sum(LENGTHS), 16)]
    assert hidden.shape == (len(LENGTHS), max(LENGTHS), 16)


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    return "cuda:0"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernel_agrees_with_attention_by_runs(cuda: str, dtype: torch.dtype) -> None:
    lengths = (7, 64, 1, 23, 23, 300)
    placement = Placement(device=cuda, dtype=str(dtype).removeprefix("torch."), threads=0, reason="")
    assert attention_for(placement) is flash_attention
    generator = torch.Generator(cuda).manual_seed(0)
    query, key, value = (
        torch.randn(sum(lengths), 12, 32, generator=generator, device=cuda, dtype=dtype) for _ in range(3)
    )
    where = packing_of(lengths).to(lambda tensor: tensor.to(cuda))
    found = flash_attention(query, key, value, packing=where, scale=0.2)
    expected = attention_by_runs(query.float(), key.float(), value.float(), packing=where, scale=0.2)
    check_agreement(found.flatten(1), expected.flatten(1), tolerance=placement.tolerance)


@pytest.mark.gpu
def test_the_kernel_gives_the_same_bits_whoever_the_neighbours_are(cuda: str) -> None:
    generator = torch.Generator(cuda).manual_seed(0)
    states = torch.randn(340, 12, 32, generator=generator, device=cuda, dtype=torch.float16)
    alone = packing_of((40,)).to(lambda tensor: tensor.to(cuda))
    among = packing_of((40, 300)).to(lambda tensor: tensor.to(cuda))
    first = states[:40].contiguous()
    assert torch.equal(
        flash_attention(first, first, first, packing=alone, scale=None),
        flash_attention(states, states, states, packing=among, scale=None)[:40],
    )
