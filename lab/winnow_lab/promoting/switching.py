"""Puts a model where a service looks for it, so that at every moment there is one whole model.

The place is a link to a folder beside it, one folder for each model that was ever put there; a link is replaced in one
step, and going back is to point it back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from winnow_inference.models.weights import sha256_of
from winnow_lab.hashing import hash_of
from winnow_rpc.faults import FailedPrecondition

_NOT_THE_MODELS = ("training", "checkpoint-*", "checkpoints", ".*")
"""What a training leaves beside the model that it made."""


def switch(candidate: Path, place: Path) -> Path | None:
    """Copies the candidate beside `place` and makes that a link to the copy; returns what it pointed at before.

    Raises FailedPrecondition if something else than such a link is there, OSError if the disk is full: then what was
    there serves on.
    """
    check_place(place)
    before = place.resolve() if place.is_symlink() else None
    place.parent.mkdir(parents=True, exist_ok=True)
    copying = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        copy, link = copying / "model", copying / "link"
        shutil.copytree(candidate, copy, ignore=shutil.ignore_patterns(*_NOT_THE_MODELS))
        kept = place.with_name(f"{place.name}.{_content(copy)[:12]}")
        if not kept.exists():
            copy.rename(kept)
        link.symlink_to(kept.name)
        link.replace(place)
    finally:
        shutil.rmtree(copying, ignore_errors=True)
    return before


def check_place(place: Path) -> None:
    """Raises FailedPrecondition if there is something else than a link that can be replaced."""
    if place.exists() and not place.is_symlink():
        raise FailedPrecondition(
            f"{place} is there and no link: a folder cannot be replaced in one step. Name another place, and point the "
            f"service at that",
            reason="NOT_A_LINK",
        )


def _content(folder: Path) -> str:
    """A hash of all files, which are on the disk when it returns, so that no link ever leads to half a model."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return hash_of([path.relative_to(folder).as_posix(), sha256_of(path)] for path in files)
