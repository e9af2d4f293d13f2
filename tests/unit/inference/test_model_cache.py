"""Converted models are kept, each whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.models.tiny import build_bi_encoder
from tests.unit.inference.cache_entries import KEY, is_whole, writes
from winnow_inference.models.model_cache import CacheEntry, ModelCache, content_key


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path)


def test_what_was_made_is_found_by_its_key_and_no_other(cache: ModelCache, tmp_path: Path) -> None:
    assert cache.find(KEY) is None
    assert is_whole(cache.make(KEY, writes))
    assert is_whole(cache.find(KEY))
    assert is_whole(ModelCache(tmp_path).find(KEY))
    assert cache.find("j" * 64) is None
    assert [path.name for path in (tmp_path / "models").iterdir()] == [KEY]


def test_a_build_that_fails_leaves_nothing(cache: ModelCache, tmp_path: Path) -> None:
    def fails(place: Path) -> Mapping[str, Any]:
        writes(place)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        cache.make(KEY, fails)
    assert cache.find(KEY) is None
    assert list((tmp_path / "models").iterdir()) == []


def test_an_entry_is_not_there_before_it_is_whole(cache: ModelCache) -> None:
    def watched(place: Path) -> Mapping[str, Any]:
        facts = writes(place)
        assert cache.find(KEY) is None
        return facts

    assert is_whole(cache.make(KEY, watched))


def test_a_process_that_is_killed_half_way_leaves_no_entry(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from winnow_inference.models.model_cache import ModelCache\n"
        f"def build(place): (place / 'model.xml').write_text('<'); os._exit(9)\n"
        f"ModelCache(pathlib.Path(sys.argv[1])).make({KEY!r}, build)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30).returncode == 9
    cache = ModelCache(tmp_path)
    assert cache.find(KEY) is None
    assert is_whole(cache.make(KEY, writes))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a file is missing": lambda entry: (entry / "model.bin").unlink(),
    "a file is cut off": lambda entry: os.truncate(entry / "model.bin", 100),
    "a file is changed": lambda entry: (entry / "model.xml").write_text("<nut/>"),
    "a file is a folder": lambda entry: ((entry / "model.xml").unlink(), (entry / "model.xml").mkdir()),
    "the manifest is missing": lambda entry: (entry / "manifest.json").unlink(),
    "the manifest is cut off": lambda entry: os.truncate(entry / "manifest.json", 20),
    "the manifest is empty": lambda entry: os.truncate(entry / "manifest.json", 0),
    "the manifest is not text": lambda entry: (entry / "manifest.json").write_bytes(b"\xff\xfe"),
    "the manifest is a list": lambda entry: (entry / "manifest.json").write_text("[]"),
    "the manifest lists nothing": lambda entry: (entry / "manifest.json").write_text('{"files": 3}'),
    "the facts are missing": lambda entry: (entry / "facts.json").unlink(),
    "the facts are changed": lambda entry: (entry / "facts.json").write_text('{"dimension": 17}'),
    "the entry is empty": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_as_if_it_were_not_there_and_is_made_anew(
    cache: ModelCache, tmp_path: Path, damage: str
) -> None:
    cache.make(KEY, writes)
    DAMAGES[damage](tmp_path / "models" / KEY)
    assert cache.find(KEY) is None
    assert is_whole(cache.make(KEY, writes))
    assert is_whole(cache.find(KEY))


def test_damage_is_said(cache: ModelCache, tmp_path: Path) -> None:
    cache.make(KEY, writes)
    (tmp_path / "models" / KEY / "model.bin").unlink()
    with capture_logs() as logs:
        cache.find(KEY)
    assert [entry["event"] for entry in logs] == ["cache entry is damaged and is made anew"]


def test_threads_that_make_the_same_entry_at_once_all_get_a_whole_one(cache: ModelCache, tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    entries: list[CacheEntry] = []

    def slowly(place: Path) -> Mapping[str, Any]:
        barrier.wait(10)
        facts = writes(place)
        barrier.wait(10)
        return facts

    threads = [threading.Thread(target=lambda: entries.append(cache.make(KEY, slowly))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [is_whole(entry) for entry in entries] == [True] * 4
    assert is_whole(cache.find(KEY))
    assert [path.name for path in (tmp_path / "models").iterdir()] == [KEY]


def test_processes_that_make_the_same_entry_at_once_all_get_a_whole_one(tmp_path: Path) -> None:
    code = """
import pathlib, sys, time
from winnow_inference.models.model_cache import ModelCache
folder, mine = pathlib.Path(sys.argv[1]), sys.argv[2]
def build(place):
    (folder / mine).touch()
    until = time.monotonic() + 20
    while not all((folder / name).exists() for name in "ab") and time.monotonic() < until:
        time.sleep(0.005)
    (place / "model.xml").write_text("<net/>")
    (place / "model.bin").write_bytes(b"weights" * 1000)
    return {"dimension": 16, "labels": ["no", "yes"]}
entry = ModelCache(folder).make("k" * 64, build)
assert (entry.folder / "model.bin").stat().st_size == 7000
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), mine]) for mine in "ab"]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert is_whole(ModelCache(tmp_path).find(KEY))
    assert [path.name for path in (tmp_path / "models").iterdir()] == [KEY]


def test_a_cache_that_cannot_be_written_is_said_once_and_nothing_is_kept(tmp_path: Path) -> None:
    # A file where the folder should be: permissions would not stop the superuser, as whom containers run.
    (tmp_path / "file").write_text("")
    cache = ModelCache(tmp_path / "file")
    with capture_logs() as logs:
        for key in ("a" * 64, "b" * 64, "a" * 64):
            assert cache.find(key) is None
            entry = cache.make(key, writes)
            assert (entry.folder / "model.bin").is_file()
            assert entry.facts["dimension"] == 16
    assert [entry["event"] for entry in logs] == ["cache cannot be written; the next start prepares the model again"]
    assert logs[0]["log_level"] == "warning"


def test_a_fault_of_the_build_is_no_fault_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def fails(place: Path) -> Mapping[str, Any]:
        raise ValueError("not this model")

    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="not this model"):
            ModelCache(folder).make(KEY, fails)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_bi_encoder(tmp_path_factory.mktemp("cached") / "model")
    (folder / "3_Dense").mkdir()
    (folder / "3_Dense" / "model.safetensors").write_bytes(b"weights of a module")
    (folder / "README.md").write_text("A model.")
    return folder


MADE_BY = {"scheme": 1, "max_token_count": 0}


def other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


def other_setting(folder: Path) -> None:
    path = folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pooling_mode": "cls"}))


OTHER_MODELS: dict[str, Callable[[Path], object]] = {
    "weights": other_weights,
    "weights of a later module": lambda f: (f / "3_Dense" / "model.safetensors").write_bytes(b"weights of an0ther"),
    "setting of a module": other_setting,
    "config": lambda f: (f / "config.json").write_text("{}"),
    "tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
    "prompts": lambda f: (f / "config_sentence_transformers.json").write_text("{}"),
    "a file more": lambda f: (f / "sentence_bert_config.json").write_text('{"max_seq_length": 8}'),
    "a file less": lambda f: (f / "tokenizer_config.json").unlink(),
}


@pytest.mark.parametrize("change", OTHER_MODELS)
def test_another_model_has_another_key(model: Path, copy_of: Callable[[Path], Path], change: str) -> None:
    other = copy_of(model)
    assert content_key(other, MADE_BY) == content_key(model, MADE_BY)
    OTHER_MODELS[change](other)
    assert content_key(other, MADE_BY) != content_key(model, MADE_BY)


def test_another_limit_or_maker_has_another_key(model: Path) -> None:
    keys = {
        content_key(model, MADE_BY),
        content_key(model, {**MADE_BY, "max_token_count": 8}),
        content_key(model, {**MADE_BY, "scheme": 2}),
        content_key(model, {**MADE_BY, "openvino": "2026.4.1"}),
    }
    assert len(keys) == 4


def test_a_readme_and_how_to_mix_ranks_change_nothing(model: Path, copy_of: Callable[[Path], Path]) -> None:
    other = copy_of(model)
    (other / "README.md").write_text("Another story.")
    (other / "winnow.json").write_text('{"mixing": {}}')
    (other / "training.log").write_text("loss")
    assert content_key(other, MADE_BY) == content_key(model, MADE_BY)


def test_what_came_prepared_is_found_but_neither_written_nor_removed(tmp_path: Path) -> None:
    came = tmp_path / "prepared"
    ModelCache(came).make(KEY, writes)
    cache = ModelCache(tmp_path / "own", prepared=came)
    found = cache.find(KEY)
    assert is_whole(found)
    assert found is not None
    assert found.folder.is_relative_to(came)
    assert cache.find("j" * 64) is None
    cache.make("j" * 64, writes)
    assert [path.name for path in (came / "models").iterdir()] == [KEY]
    (found.folder / "model.bin").write_bytes(b"other")
    assert cache.find(KEY) is None
    assert (came / "models" / KEY).is_dir(), "it is not ours to remove"
    assert is_whole(cache.make(KEY, writes))
    assert is_whole(cache.find(KEY))
