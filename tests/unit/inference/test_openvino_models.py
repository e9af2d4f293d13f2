"""Models of every kind on OpenVINO: heads, prompts, tokenizers, what cannot be converted, and what the cache keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow_inference import opening
from winnow_inference.models.loading import load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder
from winnow_inference.models.model_cache import ModelCache
from winnow_inference.opening import OpenModel
from winnow_inference.sequences import Matrix
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer
from winnow_rpc.faults import FailedPrecondition, Fault, NotFound

# In this process: another one would have to import torch for each of these models.
open_bi_encoder = partial(opening.open_bi_encoder, apart=False)
open_cross_encoder = partial(opening.open_cross_encoder, apart=False)

# Other kernels than torch's, so another order of additions; measured up to 3e-7 on these models of 16 dimensions.
TOLERANCE = 9e-7
TEXTS = ["what is bread", "the river of berlin runs to the sea", "music", "Hello World. One, two, three!", "red " * 40]
PAIRS = [("what is bread", "bread is bread"), ("which city", "the river of berlin"), ("music", "a"), ("", "sea")]


@pytest.fixture(scope="module")
def settings() -> Callable[..., InferenceSettings]:
    def make(folder: Path, **more: Any) -> InferenceSettings:
        given = {"model": str(folder), "device": "cpu", "dtype": "float32", "threads": 1}
        return InferenceSettings.model_validate({**given, **more})

    return make


def at(folder: Path) -> ModelFolder:
    return ModelFolder(path=folder, id=str(folder))


def no_default() -> ModelFolder:
    raise AssertionError("a model is set")


def embedded(model: OpenModel[Any], texts: list[str], *, prompt: str = "") -> Matrix:
    tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
    engine = model.make_engine()
    try:
        return engine.run(engine.prepare(tokenizer.tokenize_texts(texts, prompt=prompt).sequences), 0)
    finally:
        engine.close()
        tokenizer.close()


def scored(model: OpenModel[Any], pairs: list[tuple[str, str]]) -> Matrix:
    tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
    engine = model.make_engine()
    try:
        firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
        return engine.run(engine.prepare(tokenizer.tokenize_pairs(firsts, seconds).sequences), 0)
    finally:
        engine.close()
        tokenizer.close()


@pytest.mark.parametrize(
    ("labels", "activation", "name"),
    [
        (["score"], None, "sigmoid"),
        (["score"], "torch.nn.modules.linear.Identity", "identity"),
        (["contradiction", "entailment", "neutral"], None, "identity"),
        (["no", "yes"], "torch.nn.modules.activation.Sigmoid", "sigmoid"),
    ],
)
def test_labels_and_activation_are_the_model_s_own(
    tmp_path: Path,
    settings: Callable[..., InferenceSettings],
    labels: list[str],
    activation: str | None,
    name: str,
) -> None:
    folder = build_cross_encoder(tmp_path / "model", labels=labels, activation=activation)
    model = open_cross_encoder(settings(folder, engine="openvino"), default=no_default)
    library = load_cross_encoder(at(folder), device="cpu")
    assert model.facts == library.facts
    assert (model.facts.labels, model.facts.activation_name) == (tuple(labels), name)
    expected = library.module.predict(PAIRS).reshape(len(PAIRS), len(labels))
    np.testing.assert_allclose(scored(model, PAIRS), expected, rtol=1e-6, atol=TOLERANCE)
    assert np.ptp(expected, axis=0).min() > 0.01, "all scores are alike, so this test shows nothing"


def test_queries_and_passages_get_their_prompts(
    tiny_bi_encoder: Path, settings: Callable[..., InferenceSettings]
) -> None:
    model = open_bi_encoder(settings(tiny_bi_encoder, engine="openvino"))
    library = load_bi_encoder(at(tiny_bi_encoder), device="cpu")
    assert model.facts == library.facts
    queries = embedded(model, TEXTS, prompt=model.facts.query_prompt)
    np.testing.assert_allclose(queries, library.module.encode_query(TEXTS), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(embedded(model, TEXTS), library.module.encode_document(TEXTS), rtol=0, atol=TOLERANCE)


def test_a_model_whose_pooling_leaves_out_the_prompt_is_left_to_torch_and_that_is_said(
    tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    folder = build_bi_encoder(tmp_path / "model", prompts={"query": "query: "}, include_prompt=False)
    model = open_bi_encoder(settings(folder))
    said = model.make_engine().description
    assert said.name == "torch"
    assert "not OpenVINO: its pooling leaves out the prompt" in said.reason
    library = load_bi_encoder(at(folder), device="cpu").module
    np.testing.assert_allclose(
        embedded(model, TEXTS, prompt="query: "), library.encode_query(TEXTS), rtol=0, atol=TOLERANCE
    )
    for insisting in ({"engine": "openvino"}, {"dtype": "int8"}):
        with pytest.raises(FailedPrecondition, match="pooling leaves out the prompt") as refused:
            open_bi_encoder(settings(folder, **insisting))
        assert refused.value.reason == "MODEL_NOT_CONVERTIBLE"
        assert refused.value.metadata == {"folder": str(folder)}


def test_without_a_prompt_there_is_nothing_to_leave_out(
    tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    folder = build_bi_encoder(tmp_path / "model", include_prompt=False)
    assert open_bi_encoder(settings(folder)).make_engine().description.name == "openvino"


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
        ("sentence_bert_config.json", {"max_seq_length": 16}),
    ],
)
def test_texts_are_tokenized_as_the_libraries_set_the_tokenizer_up_not_as_its_file_says(
    tmp_path: Path, settings: Callable[..., InferenceSettings], file: str, more: dict[str, Any]
) -> None:
    folder = build_bi_encoder(tmp_path / "model")
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **more}))
    library = load_bi_encoder(at(folder), device="cpu").module
    for _ in range(2):  # made, and out of the cache
        model = open_bi_encoder(settings(folder, engine="openvino"))
        np.testing.assert_allclose(embedded(model, TEXTS), library.encode(TEXTS), rtol=0, atol=TOLERANCE)


def test_a_second_opening_reads_neither_the_library_nor_anything_else_anew(
    tiny_cross_encoder: Path, settings: Callable[..., InferenceSettings]
) -> None:
    first = open_cross_encoder(settings(tiny_cross_encoder), default=no_default)
    with capture_logs() as logs:
        second = open_cross_encoder(settings(tiny_cross_encoder), default=no_default)
    assert logs == [], "something was made again"
    assert second.facts == first.facts
    np.testing.assert_array_equal(scored(second, PAIRS), scored(first, PAIRS))


def test_another_limit_is_another_entry(tiny_bi_encoder: Path, settings: Callable[..., InferenceSettings]) -> None:
    whole = open_bi_encoder(settings(tiny_bi_encoder))
    short = open_bi_encoder(settings(tiny_bi_encoder, max_token_count=8))
    assert (whole.facts.max_token_count, short.facts.max_token_count) == (32, 8)
    assert whole.facts.fingerprint != short.facts.fingerprint
    assert np.abs(embedded(short, TEXTS) - embedded(whole, TEXTS)).max() > 0.01


def tear(cache: Path) -> int:
    """Cuts every file of the cache in half; how many there were."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    for path in files:
        os.truncate(path, path.stat().st_size // 2)
    return len(files)


def test_a_torn_cache_is_made_anew(
    tiny_bi_encoder: Path, tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    given = settings(tiny_bi_encoder, cache_dir=tmp_path)
    expected = embedded(open_bi_encoder(given), TEXTS)
    assert tear(tmp_path) > 4
    with capture_logs() as logs:
        model = open_bi_encoder(given)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "cache entry is damaged and is made anew"
    ] * 2  # the model, and how it runs best
    np.testing.assert_array_equal(embedded(model, TEXTS), expected)


def test_a_start_removes_what_is_old_and_never_what_it_runs_on(
    tiny_bi_encoder: Path, tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    former = tmp_path / "models" / ("f" * 64)
    ModelCache(tmp_path).make(former.name, lambda place: {"size": (place / "model.bin").write_bytes(b"weights")})
    os.utime(former, (0, 0))
    given = settings(tiny_bi_encoder, cache_dir=tmp_path, cache_max_bytes=1)
    with capture_logs() as logs:
        model = open_bi_encoder(given, apart=False)
    assert [entry["key"] for entry in logs if entry["event"] == "cache entry removed"] == [former.name]
    assert not former.exists()
    # The model, and how it runs best.
    assert len(list((tmp_path / "models").iterdir())) == 2
    assert len(embedded(model, TEXTS)) == len(TEXTS)
    with capture_logs() as logs:
        open_bi_encoder(given, apart=False)
    assert logs == [], "another one found it, and removed nothing"


def test_a_cache_that_cannot_be_written_only_costs_time(
    tiny_bi_encoder: Path, tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        model = open_bi_encoder(settings(tiny_bi_encoder, cache_dir=tmp_path / "file"))
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "cache cannot be written; the next start prepares the model again"
    ]
    expected = load_bi_encoder(at(tiny_bi_encoder), device="cpu").module.encode_document(TEXTS)
    np.testing.assert_allclose(embedded(model, TEXTS), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        ({"device": "cuda:63"}, FailedPrecondition, "DEVICE_NOT_FOUND"),
        ({"device": "cuda:63", "engine": "openvino"}, FailedPrecondition, "BAD_SETTING"),
        ({"engine": "torch", "dtype": "int8"}, FailedPrecondition, "BAD_SETTING"),
        ({"dtype": "int8", "calibration_texts": "/no/such/file"}, NotFound, "BAD_SETTING"),
        ({"max_token_count": 3}, FailedPrecondition, "BAD_SETTING"),
    ],
)
def test_what_cannot_be_is_one_fault_with_its_reason(
    tiny_bi_encoder: Path,
    settings: Callable[..., InferenceSettings],
    given: dict[str, Any],
    kind: type[Fault],
    reason: str,
) -> None:
    with pytest.raises(kind) as refused:
        open_bi_encoder(settings(tiny_bi_encoder, **given))
    assert refused.value.reason == reason
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("what", ["empty folder", "text file", "no weights", "not there"])
def test_a_folder_that_is_no_model_is_one_fault_that_names_it(
    tmp_path: Path,
    tiny_bi_encoder: Path,
    copy_of: Callable[[Path], Path],
    settings: Callable[..., InferenceSettings],
    what: str,
) -> None:
    folder = tmp_path / "model"
    if what == "empty folder":
        folder.mkdir()
    elif what == "text file":
        folder.write_text("hello")
    elif what == "no weights":
        folder = copy_of(tiny_bi_encoder)
        (folder / "model.safetensors").unlink()
    with pytest.raises(Fault) as refused:
        open_bi_encoder(settings(folder))
    assert refused.value.reason in ("MODEL_NOT_FOUND", "MODEL_UNREADABLE")
    assert str(folder) in refused.value.message


def test_a_tokenizer_without_a_limit_reads_what_the_model_has_positions_for(
    tmp_path: Path, settings: Callable[..., InferenceSettings]
) -> None:
    folder = build_bi_encoder(tmp_path / "model", limit=24, tokenizer_limit=None)
    model = open_bi_encoder(settings(folder, engine="openvino"))
    assert model.facts.max_token_count == 24
    assert np.isfinite(embedded(model, ["bread " * 100_000])).all()
