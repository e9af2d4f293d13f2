"""CURRENT alone says which generation is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow_index.generations import CollectionDirectory


def _directory(tmp_path: Path) -> CollectionDirectory:
    directory = CollectionDirectory(tmp_path)
    for _ in range(3):
        directory.next_generation().mkdir()
    return directory


def test_generations_are_numbered_upwards(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    assert directory.next_generation().name == "generation-000004"
    (tmp_path / "generation-000009").mkdir()
    assert directory.next_generation().name == "generation-000010"


def test_a_sweep_keeps_the_truth_alone(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    directory.switch(tmp_path / "generation-000002")
    (tmp_path / "generation-notes").mkdir()
    assert sorted(directory.sweep()) == ["generation-000001", "generation-000003"]
    assert directory.current() == tmp_path / "generation-000002"
    assert (tmp_path / "generation-notes").is_dir()


@pytest.mark.parametrize("text", ["", "generation-000077", "../elsewhere", "generation-000001/../..", "/etc"])
def test_a_current_that_names_nothing_is_refused_and_nothing_is_swept(tmp_path: Path, text: str) -> None:
    directory = _directory(tmp_path)
    (tmp_path / "CURRENT").write_text(text)
    with pytest.raises(ValueError, match="CURRENT"):
        directory.current()
    with pytest.raises(ValueError, match="CURRENT"):
        directory.sweep()
    assert len(list(tmp_path.glob("generation-*"))) == 3


def test_a_definition_is_replaced_at_once(tmp_path: Path) -> None:
    directory = CollectionDirectory(tmp_path)
    directory.write_definition({"name": "é", "n": 1})
    directory.write_definition({"name": "é", "n": 2})
    assert directory.read_definition() == {"name": "é", "n": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
