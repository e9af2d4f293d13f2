"""A file that cannot be written is named, and what was written before is there."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from winnow_lab.line_file import LineFile, whole_lines
from winnow_lab.training.made_once import made_once
from winnow_lab.training.run_folder import write_json


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as none does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_before_a_full_disk_are_kept_and_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    with pytest.raises(OSError, match="File too large") as caught, files_of_at_most(100), LineFile(path) as lines:
        for at in range(100):
            lines.add({"at": at})
    assert caught.value.filename == str(path)
    assert whole_lines(path)[:2] == [b'{"at": 0}', b'{"at": 1}']
    with LineFile(path) as lines:
        lines.add({"at": "after"})
    assert whole_lines(path)[-1] == b'{"at": "after"}'


def test_what_is_made_once_or_written_whole_is_named_too(tmp_path: Path) -> None:
    made = tmp_path / "made.jsonl.gz"
    with pytest.raises(OSError, match="File too large") as caught, files_of_at_most(100):
        made_once(made, lambda: (list(range(at, at + 50)) for at in range(0, 100_000, 7)))
    assert caught.value.filename == str(made)
    assert not made.exists()
    with pytest.raises(OSError, match="File too large") as caught, files_of_at_most(100):
        write_json(tmp_path / "history.json", list(range(1000)))
    assert caught.value.filename == str(tmp_path / "history.json")
    assert not (tmp_path / "history.json").exists()
