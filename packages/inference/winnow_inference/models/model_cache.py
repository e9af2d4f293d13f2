"""Keeps what preparing a model took long to make, by the model's content: converted weights, facts, measurements.

An entry is a folder that appears whole or not at all, and is checked before it is used: files that are missing, cut
off or changed make it as if it were not there. It is named by a hash of the model's files and of what made the entry,
so that another model, another limit or another version never finds it.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from winnow_inference.models.weights import sha256_of
from winnow_rpc import telemetry

log = telemetry.get_logger("winnow.inference")

_MANIFEST, _FACTS = "manifest.json", "facts.json"
# What a model is made of, as `locating` fetches it; a README changes nothing.
_PARTS = ("*.json", "*.txt", "*.model", "*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
# What says nothing of the model's results, and may be learned anew.
_APART = frozenset({"winnow.json"})


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Files that were kept, whole and unchanged."""

    folder: Path
    """Where they lie."""
    facts: Mapping[str, Any]
    """What was said of them."""


class ModelCache:
    """A folder of entries. Where it cannot be written, nothing is kept, and that is said once."""

    def __init__(self, folder: Path | None, *, prepared: Path | None = None) -> None:
        """`folder`: None takes the user's cache folder. `prepared`: another one, which is only read."""
        self._folder = (folder or user_cache_path("winnow")) / "models"
        self._prepared = prepared / "models" if prepared else None
        self._said = False

    def find(self, key: str) -> CacheEntry | None:
        """The entry of that key; None if there is none, or none that can be trusted."""
        found = self._sound(self._folder / key, ours=True)
        if found is None and self._prepared:
            found = self._sound(self._prepared / key, ours=False)
        return found

    def _sound(self, folder: Path, *, ours: bool) -> CacheEntry | None:
        """The entry in that folder, if it is whole; else it is removed if it is `ours`, and that is said."""
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            sound = all(sha256_of(folder / name) == digest for name, digest in manifest["files"].items())
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            sound = False
            if not folder.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            sound = False
        if not sound or not isinstance(facts, dict):
            log.warning("cache entry is damaged and is made anew", folder=str(folder))
            if ours:
                shutil.rmtree(folder, ignore_errors=True)
            return None
        return CacheEntry(folder, facts)

    def is_writable(self) -> bool:
        """Entries made now will be kept."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                return True
        except OSError:
            return False

    def make(self, key: str, build: Callable[[Path], Mapping[str, Any]]) -> CacheEntry:
        """A new entry: `build` writes its files into a folder and returns its facts, as JSON values.

        If the cache cannot be written, the files last until this process ends.
        """
        place = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
        try:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            return self._kept(key, place, dict(build(place)))
        except OSError as error:
            if not self._said:
                log.warning("cache cannot be written; the next start prepares the model again", error=str(error))
            self._said = True
            passing = Path(tempfile.mkdtemp(prefix="winnow-model-"))
            atexit.register(shutil.rmtree, passing, ignore_errors=True)
            return CacheEntry(passing, build(passing))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _kept(self, key: str, place: Path, facts: Mapping[str, Any]) -> CacheEntry:
        (place / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        files = {path.name: sha256_of(path) for path in sorted(place.iterdir())}
        (place / _MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")
        final = self._folder / key
        try:
            place.rename(final)
        except OSError:  # another process was faster; its entry is as good
            if not final.is_dir():
                raise
        return CacheEntry(final, facts)


def content_key(folder: Path, made_by: Mapping[str, Any]) -> str:
    """The key of a model's entry: 64 lower-case hex characters for its files and `made_by`, JSON values."""
    files = {
        str(path.relative_to(folder)): sha256_of(path)
        for pattern in _PARTS
        for path in sorted(folder.glob(pattern))
        if path.is_file() and path.name not in _APART
    }
    text = json.dumps({"files": files, "made_by": dict(made_by)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
