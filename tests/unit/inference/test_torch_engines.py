from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.tiny import build_cross_encoder
from tests.unit.inference.torch_models import (
    ACCELERATIONS,
    LENGTHS,
    PADDING,
    UNPADDABLE,
    NoCapture,
    Rerun,
    close,
    computed,
    engine_of,
    sequences,
)
from winnow_inference.engines.base import EngineLost
from winnow_inference.engines.torch_engines import (
    Acceleration,
    TorchBiEncoder,
    TorchCrossEncoder,
    acceleration_for,
    positions_of,
)
from winnow_inference.engines.torch_placement import Placement, place
from winnow_inference.engines.torch_unpadding import attention_by_runs
from winnow_inference.sequences import TokenSequence


@pytest.mark.parametrize("name", UNPADDABLE)
def test_bi_encoders_and_cross_encoders_are_unpadded(name: str, folders: Callable[[str], Path]) -> None:
    engine = engine_of(name, folders(name), acceleration=Acceleration(attention=attention_by_runs))
    assert engine.description.reason == "told so; unpadded"


def test_a_model_that_cannot_be_unpadded_says_why_and_works(folders: Callable[[str], Path]) -> None:
    engine = engine_of(
        "modernbert", folders("modernbert"), acceleration=Acceleration(attention=attention_by_runs, capturer=Rerun())
    )
    assert "padded: ModernBertModel has no encoder of its own" in engine.description.reason
    assert engine.description.reason.endswith(" CUDA graphs for small batches")
    computed(engine, sequences(LENGTHS))


def test_what_the_device_lacks_is_in_the_reason(folders: Callable[[str], Path]) -> None:
    lacking = Acceleration(obstacle="the GPU has compute capability 7.5", capturer=NoCapture())
    engine = engine_of("bert", folders("bert"), acceleration=lacking)
    assert engine.description.reason == (
        "told so; padded: the GPU has compute capability 7.5; no CUDA graphs: RuntimeError: capture is not supported"
    )
    computed(engine, sequences(LENGTHS))


def test_a_cpu_is_left_as_it_is(folders: Callable[[str], Path]) -> None:
    placement = place(device="cpu", dtype="auto", threads=1)
    assert acceleration_for(placement) == Acceleration()
    engine = engine_of("bert", folders("bert"))
    description = engine.description
    assert (description.name, description.device, description.dtype) == ("torch", "cpu", "float32")
    assert (description.threads, description.streams, description.reason) == (1, 1, "told so")
    assert (engine.lanes.count, engine.lanes.total) == (1, 1)


@pytest.mark.parametrize("acceleration", ACCELERATIONS)
@pytest.mark.parametrize(
    ("labels", "activation"),
    [(["score"], "torch.nn.modules.linear.Identity"), (["score"], None), (["no", "maybe", "yes"], None)],
)
def test_scores_are_the_librarys_own_for_every_head_and_activation(
    tmp_path: Path, acceleration: str, labels: list[str], activation: str | None
) -> None:
    from sentence_transformers import CrossEncoder

    folder = build_cross_encoder(tmp_path / "m", labels=labels, activation=activation)
    module: Any = CrossEncoder(str(folder), device="cpu").eval()
    pairs = [("what is bread", "bread is bread"), ("which city", "the river of berlin"), ("music", "a")]
    expected = module.predict(pairs, convert_to_numpy=True).reshape(3, len(labels))
    module.tokenizer.backend_tokenizer.no_padding()
    encodings = module.tokenizer.backend_tokenizer.encode_batch(pairs)
    engine = TorchCrossEncoder(
        module,
        padding=PADDING,
        placement=place(device="cpu", dtype="float32", threads=1),
        width=len(labels),
        activation=module.activation_fn,
        acceleration=ACCELERATIONS[acceleration](),
    )
    batch = [
        TokenSequence(np.array(encoding.ids, dtype=np.int32), np.array(encoding.type_ids, dtype=np.int32))
        for encoding in encodings
    ]
    np.testing.assert_allclose(computed(engine, batch), expected, rtol=1e-4, atol=1e-5)


def test_a_second_engine_can_be_made_of_the_model_after_the_first_is_closed(folders: Callable[[str], Path]) -> None:
    first = engine_of("bert", folders("bert"), acceleration=ACCELERATIONS["both"]())
    module = first._module
    expected = computed(first, sequences(LENGTHS))
    first.close()
    assert not module[0].model.encoder._forward_hooks
    second = TorchBiEncoder(
        module,
        padding=PADDING,
        placement=place(device="cpu", dtype="float32", threads=1),
        width=16,
        prompt_is_pooled=True,
        acceleration=ACCELERATIONS["both"](),
    )
    np.testing.assert_array_equal(computed(second, sequences(LENGTHS)), expected)


class Fatal:
    """Attention and recording that break the device under a model, each when told."""

    def __init__(self, model: Any, *, attends: bool) -> None:
        self.model = model
        self.attends = attends

    def breaks(self) -> None:
        def lost(_module: Any, _args: Any) -> None:
            raise torch.AcceleratorError("an illegal memory access was encountered")

        self.model.embeddings.register_forward_pre_hook(lost)
        raise torch.AcceleratorError("an illegal memory access was encountered")

    def __call__(self, query: Any, key: Any, value: Any, *, packing: Any, scale: float | None) -> torch.Tensor:
        if not self.attends:
            self.breaks()
        return attention_by_runs(query, key, value, packing=packing, scale=scale)

    def capture(self, compute: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.breaks()
        return compute, compute()  # type: ignore[return-value]


@pytest.mark.parametrize("attends", [False, True])
def test_a_device_that_does_not_survive_the_trial_loses_the_engine(
    attends: bool, folders: Callable[[str], Path]
) -> None:
    from sentence_transformers import SentenceTransformer

    module: Any = SentenceTransformer(str(folders("bert")), device="cpu").eval()
    model = module[0].model
    fatal = Fatal(model, attends=attends)
    with pytest.raises(EngineLost, match="illegal memory access"):
        TorchBiEncoder(
            module,
            padding=PADDING,
            placement=place(device="cpu", dtype="float32", threads=1),
            width=16,
            prompt_is_pooled=True,
            acceleration=Acceleration(attention=fatal, capturer=fatal),
        )
    assert model.config._attn_implementation == "sdpa"
    assert not model.encoder._forward_hooks


def test_positions_are_counted_as_the_model_counts_them(folders: Callable[[str], Path]) -> None:
    bert, roberta = (engine_of(name, folders(name))._module for name in ("bert", "roberta"))
    assert positions_of(bert[0].model) == 66
    assert positions_of(roberta[0].model) == 65  # from after the padding index, which is 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", UNPADDABLE)
def test_a_gpu_unpads_and_records_and_gives_what_the_cpu_gives(
    name: str, dtype: str, folders: Callable[[str], Path]
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    expected = computed(engine_of(name, folders(name)), sequences(LENGTHS))
    engine = engine_of(name, folders(name), device="cuda:0", dtype=dtype)
    assert engine.description.reason.startswith("told so; unpadded; ")
    assert engine.description.reason.endswith(" CUDA graphs for small batches")
    tolerance = Placement(device="cuda:0", dtype=dtype, threads=0, reason="").tolerance
    batch = sequences(LENGTHS)
    together = computed(engine, batch)
    alone = np.concatenate([computed(engine, [sequence]) for sequence in batch])
    assert close(together, alone, tolerance)
    # Rounding of weights and of every layer, not of the order of additions alone.
    assert close(together, expected, 4 * tolerance)


@pytest.mark.gpu
def test_a_gpu_that_ran_out_of_memory_goes_on(folders: Callable[[str], Path]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    engine = engine_of("bert", folders("bert"), device="cuda:0", dtype="float16")
    expected = computed(engine, sequences(LENGTHS))
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            computed(engine, sequences([66] * 20_000))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_array_equal(computed(engine, sequences(LENGTHS)), expected)
