from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.tiny import build_bi_encoder, build_cross_encoder
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
from winnow_inference.facts import Padding
from winnow_inference.sequences import Matrix, TokenSequence

DTYPES = ["float32", "float16", "bfloat16"]
PADDING = Padding(token_id=0, segment_id=0, left=False, segments=True)
# Special tokens come first in the tiny vocabularies.
IDS = np.arange(5, 60)


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


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by name, each built once."""
    import transformers

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            build = build_cross_encoder if name in CROSS else build_bi_encoder
            made[name] = build(tmp_path_factory.mktemp(name) / "model")
            kind, configuration, more = MODELS[name]
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = getattr(transformers, kind)(config(configuration, **more))
            model.save_pretrained(made[name])
        return made[name]

    return folder


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


LENGTHS = [3, 17, 40, 9, 1, 64, 17, 25, 12, 17]


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
