"""What the tests keep in a cache of models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow_inference.models.model_cache import CacheEntry

KEY = "k" * 64


def writes(place: Path) -> Mapping[str, Any]:
    (place / "model.xml").write_text("<net/>")
    (place / "model.bin").write_bytes(b"weights" * 1000)
    return {"dimension": 16, "labels": ["no", "yes"]}


def is_whole(entry: CacheEntry | None) -> bool:
    return (
        entry is not None
        and (entry.folder / "model.xml").read_text() == "<net/>"
        and (entry.folder / "model.bin").read_bytes() == b"weights" * 1000
        and entry.facts == {"dimension": 16, "labels": ["no", "yes"]}
    )
