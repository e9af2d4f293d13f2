"""A copy of a directory that is written to becomes equal, round by round."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from winnow_index.mirroring import Mirror, mapped_writes_touch_times

MIB = 1024 * 1024


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep" / "empty").mkdir(parents=True)
    (source / "a").write_bytes(b"a" * 3 * MIB)
    (source / "deep" / "b").write_bytes(b"b")
    return source


def test_a_first_round_copies_everything_empty_folders_included(tmp_path: Path) -> None:
    source, target = _source(tmp_path), tmp_path / "target"
    assert Mirror(source, target).update() == 3 * MIB + 1
    assert _contents(target) == _contents(source)
    assert (target / "deep" / "empty").is_dir()


def test_a_further_round_writes_only_the_blocks_that_changed(tmp_path: Path) -> None:
    source, target = _source(tmp_path), tmp_path / "target"
    mirror = Mirror(source, target)
    mirror.update()
    with (source / "a").open("r+b") as file:
        file.seek(2 * MIB + 5)
        file.write(b"x")
    assert mirror.update() == MIB
    assert _contents(target) == _contents(source)
    assert mirror.update() == 0


def test_changes_through_a_mapping_are_seen_even_at_once(tmp_path: Path) -> None:
    source, target = _source(tmp_path), tmp_path / "target"
    mirror = Mirror(source, target)
    with (source / "a").open("r+b") as file, mmap.mmap(file.fileno(), 3 * MIB) as mapped:
        for n in range(200):
            mapped[n * 4096] = n
            mirror.update()
            assert (target / "a").read_bytes()[n * 4096] == n


def test_files_that_are_gone_go_and_sizes_follow(tmp_path: Path) -> None:
    source, target = _source(tmp_path), tmp_path / "target"
    mirror = Mirror(source, target)
    mirror.update()
    (source / "deep" / "b").unlink()
    (source / "deep" / "empty").rmdir()
    (source / "a").write_bytes(b"short")
    (source / "new").write_bytes(b"new")
    mirror.update()
    assert _contents(target) == _contents(source) == {"a": b"short", "new": b"new"}
    assert not (target / "deep" / "empty").exists()


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(64 * MIB)
    Mirror(source, target).update()
    state = os.stat(target / "sparse")
    assert state.st_size == 64 * MIB
    assert state.st_blocks * 512 < MIB


def test_the_question_about_times_leaves_nothing_behind(tmp_path: Path) -> None:
    assert mapped_writes_touch_times(tmp_path) in (True, False)
    assert list(tmp_path.iterdir()) == []
