"""Lines of JSON in a file that is added to while long work goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from winnow_lab.writing import written


class LineFile:
    """Open for adding; what is added is there after a kill, but for the line that it tore, which is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = sum(len(line) + 1 for line in whole_lines(self._path))
        self._file = self._path.open("r+b" if whole else "wb")
        self._file.truncate(whole)
        self._file.seek(whole)
        return self

    def __exit__(self, *raised: object) -> None:
        with written(self._path):
            self._file.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a line. Raises OSError if the disk is full."""
        with written(self._path):
            self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self._file.flush()


def whole_lines(path: Path) -> list[bytes]:
    """The lines of such a file but for one that was torn; none if there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []
