"""A model is put in place in one step, beside those before it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from winnow_lab.promoting.switching import switch
from winnow_rpc.faults import FailedPrecondition


def a_model(folder: Path, weights: str) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "training" / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    (folder / "training" / "checkpoints" / "state.bin").write_text("large")
    return folder


def test_the_place_leads_to_a_copy_of_the_model_without_its_training(tmp_path: Path) -> None:
    place = tmp_path / "serving" / "reranker"
    assert switch(a_model(tmp_path / "candidate", "one"), place) is None
    assert place.is_symlink()
    assert (place / "model.safetensors").read_text() == "one"
    assert (place / "1_Pooling" / "config.json").is_file()
    assert not (place / "training").exists()
    shutil.rmtree(tmp_path / "candidate")
    assert (place / "model.safetensors").read_text() == "one"


def test_the_model_before_stays_and_is_named_and_the_same_one_is_kept_once(tmp_path: Path) -> None:
    place = tmp_path / "reranker"
    switch(a_model(tmp_path / "one", "one"), place)
    first = place.resolve()
    assert switch(a_model(tmp_path / "two", "two"), place) == first
    assert (first / "model.safetensors").read_text() == "one"
    assert (place / "model.safetensors").read_text() == "two"
    switch(tmp_path / "one", place)
    assert place.resolve() == first
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(("reranker", ".reranker"))]) == 3


def test_another_configuration_of_the_same_weights_is_another_model(tmp_path: Path) -> None:
    place, candidate = tmp_path / "reranker", a_model(tmp_path / "one", "one")
    switch(candidate, place)
    (candidate / "winnow.json").write_text("{}")
    switch(candidate, place)
    assert (place / "winnow.json").is_file()


def test_a_folder_in_the_place_is_left_alone(tmp_path: Path) -> None:
    place = a_model(tmp_path / "serving", "mine")
    with pytest.raises(FailedPrecondition, match="no link"):
        switch(a_model(tmp_path / "candidate", "other"), place)
    assert (place / "model.safetensors").read_text() == "mine"


def test_what_cannot_be_copied_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "reranker"
    switch(a_model(tmp_path / "one", "one"), place)

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        switch(a_model(tmp_path / "two", "two"), place)
    assert (place / "model.safetensors").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir() if "reranker" in path.name) == sorted(
        ["reranker", place.resolve().name]
    )
