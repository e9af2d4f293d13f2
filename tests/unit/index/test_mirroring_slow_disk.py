"""A copy is right however slowly the disk takes what is written to the source."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from winnow_index.mirroring import Mirror


def test_what_is_written_while_the_disk_is_waited_for_is_copied_in_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that became dirty during the wait can change again, and the file's time stays as it is."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "a").write_bytes(bytes(mmap.PAGESIZE))
    to_disk = os.fsync
    with (source / "a").open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:

        def slow(descriptor: int) -> None:
            to_disk(descriptor)
            mapped[0] = 1
            time.sleep(0.25)

        mirror = Mirror(source, target)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", slow)
            mirror.update()
        mapped[0] = 2
        mirror.update(last=True)
        assert (target / "a").read_bytes()[0] == 2
