"""Batches on the torch engines: each result its own, whoever is in the batch and whatever becomes of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.tiny import build_bi_encoder
from tests.unit.inference.torch_models import (
    ACCELERATIONS,
    DTYPES,
    LENGTHS,
    MODELS,
    PADDING,
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
)
from winnow_inference.engines.torch_placement import Placement, place
from winnow_inference.engines.torch_unpadding import attention_by_runs
from winnow_inference.sequences import TokenSequence


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("acceleration", ACCELERATIONS)
@pytest.mark.parametrize("name", ["bert", "roberta-score", "distilbert-labels"])
def test_a_result_does_not_depend_on_its_neighbours(
    name: str, acceleration: str, dtype: str, folders: Callable[[str], Path]
) -> None:
    engine = engine_of(name, folders(name), dtype=dtype, acceleration=ACCELERATIONS[acceleration]())
    tolerance = Placement(device="cpu", dtype=dtype, threads=1, reason="").tolerance
    batch = sequences(LENGTHS)
    alone = np.concatenate([computed(engine, [sequence]) for sequence in batch])
    assert close(computed(engine, batch), alone, tolerance)
    order = np.random.default_rng(0).permutation(len(batch))
    assert close(computed(engine, [batch[at] for at in order]), alone[order], tolerance)
    equal = [at for at, length in enumerate(LENGTHS) if length == 17]
    assert close(computed(engine, [batch[at] for at in equal]), alone[equal], tolerance)
    assert np.abs(alone - alone[0]).max() > 5 * tolerance, "all results are alike, so this test shows nothing"


@pytest.mark.parametrize("acceleration", ["unpadded", "recorded", "both"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_quick_gives_what_is_plain(name: str, acceleration: str, folders: Callable[[str], Path]) -> None:
    plain = engine_of(name, folders(name))
    quick = engine_of(name, folders(name), acceleration=ACCELERATIONS[acceleration]())
    for batch in (sequences(LENGTHS), sequences([5]), sequences([7, 12, 30])):
        np.testing.assert_allclose(computed(quick, batch), computed(plain, batch), rtol=1e-4, atol=2e-5)


def test_small_batches_replay_and_large_ones_do_not(folders: Callable[[str], Path]) -> None:
    capturer = Rerun()
    engine = engine_of(
        "bert", folders("bert"), acceleration=Acceleration(attention=attention_by_runs, capturer=capturer)
    )
    capturer.replays = 0
    for lengths, replays in (([5], 1), ([66], 1), ([9, 3, 30], 1), ([20] * 9, 0), ([66] * 8, 0)):
        capturer.replays = 0
        prepared = engine.prepare(sequences(lengths))
        assert [part.recorded for part in prepared.parts] == [bool(replays)]
        assert (prepared.parts[0].packing is None) == bool(replays)
        engine.run(prepared, 0)
        assert capturer.replays == replays


def test_batches_are_prepared_ahead_and_run_in_any_order(folders: Callable[[str], Path]) -> None:
    engine = engine_of("bert", folders("bert"), acceleration=ACCELERATIONS["both"]())
    batches = [sequences(lengths, seed) for seed, lengths in enumerate(([4, 8], [6], [60] * 9, [5, 7]))]
    expected = [computed(engine, batch) for batch in batches]
    prepared = [engine.prepare(batch) for batch in batches]
    for at in (3, 1, 2, 0):
        np.testing.assert_array_equal(engine.run(prepared[at], 0), expected[at])


@pytest.mark.parametrize("acceleration", ACCELERATIONS)
def test_prompts_left_out_of_pooling_stay_out_whoever_is_in_the_batch(tmp_path: Path, acceleration: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = build_bi_encoder(tmp_path / "m", include_prompt=False)
    module: Any = SentenceTransformer(str(folder), device="cpu").eval()
    engine = TorchBiEncoder(
        module,
        padding=PADDING,
        placement=place(device="cpu", dtype="float32", threads=1),
        width=16,
        prompt_is_pooled=False,
        acceleration=ACCELERATIONS[acceleration](),
    )
    plain, prompted = sequences([9, 20, 14]), [replace(one, prompt_length=3) for one in sequences([7, 25], seed=5)]
    mixed = computed(engine, [prompted[0], plain[0], plain[1], prompted[1], plain[2]])

    def by_hand(one: TokenSequence) -> Any:
        with torch.inference_mode():
            hidden = (
                module[0]
                .model(
                    input_ids=torch.from_numpy(one.ids.astype(np.int64))[None],
                    token_type_ids=torch.from_numpy(one.segments.astype(np.int64))[None],
                )
                .last_hidden_state[0, one.prompt_length :]
            )
        return torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()

    expected = np.stack([by_hand(one) for one in (prompted[0], plain[0], plain[1], prompted[1], plain[2])])
    np.testing.assert_allclose(mixed, expected, atol=2e-5)


class Obedient(torch.nn.Module):
    """A bi-encoder that does what it is told, and fails where it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.held: weakref.ref[torch.Tensor] | None = None

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        activations = features["input_ids"].float() * 2
        self.held = weakref.ref(activations)
        if self.failure is not None:
            raise self.failure
        return {"sentence_embedding": activations.sum(1, keepdim=True)}


def told() -> tuple[Obedient, TorchBiEncoder]:
    module = Obedient()
    placement = place(device="cpu", dtype="float32", threads=1)
    return module, TorchBiEncoder(module, padding=PADDING, placement=placement, width=1, prompt_is_pooled=True)


def test_a_batch_too_large_for_the_device_fails_alone_and_holds_nothing() -> None:
    module, engine = told()
    batch = sequences([4, 2])
    expected = computed(engine, batch)
    module.failure = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        try:
            computed(engine, batch)
        finally:
            # While the runner still looks at the error, and before it halves the batch.
            module.failure = None
            gc.collect()
            assert module.held is not None
            assert module.held() is None
    np.testing.assert_array_equal(computed(engine, batch), expected)


def test_a_device_that_is_gone_loses_the_engine() -> None:
    module, engine = told()
    module.failure = torch.AcceleratorError("an illegal memory access was encountered")
    with pytest.raises(EngineLost, match="illegal memory access"):
        computed(engine, sequences([4]))


def test_any_other_failure_concerns_the_batch() -> None:
    module, engine = told()
    module.failure = ValueError("not these")
    with pytest.raises(ValueError, match="not these"):
        computed(engine, sequences([4]))
