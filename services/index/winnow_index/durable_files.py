"""Files that are either wholly the old or wholly the new, also after the power was cut."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def sync_directory(path: Path) -> None:
    """Puts a directory's entries on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Puts a folder of files that another writes, renames and removes on disk. One that is gone needs nothing."""
    for _ in range(10):
        try:
            for name in os.listdir(path):
                sync_directory(path / name)  # fsync is the same call for files
            sync_directory(path)
        except FileNotFoundError:
            # Renamed since it was listed: its new name is in the next listing.
            if not path.exists():
                return
        else:
            return
    raise OSError(f"the files in {path} changed faster than they could be synced")


def sync_tree(path: Path) -> None:
    """Puts every file and directory below a path on disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            # An engine that has the tree open may remove files meanwhile.
            with contextlib.suppress(FileNotFoundError):
                sync_directory(Path(folder) / name)  # fsync is the same call for both
        with contextlib.suppress(FileNotFoundError):
            sync_directory(Path(folder))


def write_text(path: Path, text: str) -> None:
    """Replaces a file at once."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Replaces a JSON file at once."""
    write_text(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises OSError or ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))
