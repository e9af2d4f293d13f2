import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import build_bi_encoder
from winnow_inference.models.fingerprint import fingerprint

EFFECTIVE = {"max_token_count": 32, "query_prompt": "", "passage_prompt": ""}


def of(folder: Path, **changed: Any) -> str:
    return fingerprint(folder, effective=EFFECTIVE | changed)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tiny_bi_encoder: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(tiny_bi_encoder)


def test_it_is_64_hex_characters(folder: Path) -> None:
    assert len(of(folder)) == 64
    assert int(of(folder), 16)


def test_it_follows_the_model_to_another_folder(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed"
    # Files made in another order come out of a directory in another order.
    moved.mkdir(parents=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file():
            (moved / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, moved / path.relative_to(folder))
    assert of(moved) == of(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "README.md").write_text("another card"),
        lambda folder: (folder / "winnow.json").write_text('{"mixing": {}}'),
        lambda folder: edit(folder / "config.json", lambda c: c.update(dtype="float16", transformers_version="9")),
        lambda folder: edit(folder / "tokenizer.json", lambda c: c.update(truncation={"max_length": 3})),
        lambda folder: edit(folder / "tokenizer_config.json", lambda c: c.update(name_or_path="/somewhere")),
        lambda folder: edit(folder / "config_sentence_transformers.json", lambda c: c.update(__version__={"x": "1"})),
    ],
    ids=["readme", "mixing", "dtype", "tokenizer's last truncation", "path", "library version"],
)
def test_what_does_not_decide_the_result_does_not_change_it(folder: Path, change: Callable[[Path], Any]) -> None:
    before = of(folder)
    change(folder)
    assert of(folder) == before


def flip_a_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "change",
    [
        flip_a_weight,
        lambda folder: edit(folder / "config.json", lambda c: c.update(num_attention_heads=4)),
        lambda folder: edit(folder / "tokenizer.json", lambda c: c["normalizer"].update(lowercase=False)),
        lambda folder: edit(folder / "1_Pooling" / "config.json", lambda c: c.update(pooling_mode="cls")),
        lambda folder: edit(
            folder / "config_sentence_transformers.json", lambda c: c.update(prompts={"query": "ask: "})
        ),
        lambda folder: (folder / "modules.json").write_text(
            json.dumps(json.loads((folder / "modules.json").read_text())[:2])
        ),
    ],
    ids=["a weight", "architecture", "tokenizer", "pooling", "prompts", "normalisation"],
)
def test_what_decides_the_result_changes_it(folder: Path, change: Callable[[Path], Any]) -> None:
    before = of(folder)
    change(folder)
    assert of(folder) != before


@pytest.mark.parametrize("changed", [{"max_token_count": 16}, {"query_prompt": "q: "}, {"passage_prompt": "p: "}])
def test_what_is_decided_outside_the_folder_changes_it(folder: Path, changed: dict[str, Any]) -> None:
    assert of(folder, **changed) != of(folder)


def test_the_same_recipe_gives_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    same = [of(build_bi_encoder(tmp_path / name, seed=7)) for name in ("one", "two")]
    assert same[0] == same[1] != of(build_bi_encoder(tmp_path / "three", seed=8))
