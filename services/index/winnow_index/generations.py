"""A collection's directory: its definition, its generations, and which of them is the truth.

    <collection>/config.json        the definition
    <collection>/CURRENT            name of the generation that serves; replaced at once
    <collection>/generation-000007/ one shard of the engine

A generation that CURRENT does not name is the remains of a build that did not end: it is removed at the next start.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from winnow_index import durable_files

_PREFIX = "generation-"


class CollectionDirectory:
    """The files of one collection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_definition(self) -> dict[str, Any]:
        """The document in config.json. Raises OSError, or ValueError if it is not JSON."""
        document = durable_files.read_json(self.path / "config.json")
        if not isinstance(document, dict):
            raise ValueError("config.json holds no object")
        return document

    def write_definition(self, document: dict[str, Any]) -> None:
        """Replaces config.json."""
        durable_files.write_json(self.path / "config.json", document)

    def current(self) -> Path:
        """The generation that serves. Raises OSError or ValueError if there is none."""
        name = (self.path / "CURRENT").read_text(encoding="utf-8").strip()
        generation = self.path / name
        if not name.startswith(_PREFIX) or generation.parent != self.path:
            raise ValueError("CURRENT names no generation")
        if not generation.is_dir():
            raise ValueError(f"{name}, which CURRENT names, is missing")
        return generation

    def switch(self, generation: Path) -> None:
        """Makes a generation the truth; on disk when this returns."""
        durable_files.sync_directory(self.path)
        durable_files.write_text(self.path / "CURRENT", f"{generation.name}\n")

    def next_generation(self) -> Path:
        """A path for the next generation; nothing is there yet."""
        numbers = [int(path.name.removeprefix(_PREFIX)) for path in self._generations()]
        return self.path / f"{_PREFIX}{max(numbers, default=0) + 1:06d}"

    def sweep(self) -> list[str]:
        """Removes generations that are not the truth; their names. Needs a readable CURRENT."""
        keep = self.current()
        swept = [path for path in self._generations() if path != keep]
        for path in swept:
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in swept]

    def _generations(self) -> list[Path]:
        return [
            path
            for path in self.path.glob(f"{_PREFIX}*")
            if path.is_dir() and path.name.removeprefix(_PREFIX).isdigit()
        ]
