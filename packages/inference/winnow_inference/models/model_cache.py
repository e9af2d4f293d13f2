"""Keeps what preparing a model took long to make, by the model's content: converted weights, facts, measurements.

An entry is a folder that appears whole or not at all, and is checked before it is used: files that are missing, cut
off or changed make it as if it were not there. It is named by a hash of the model's files and of what made the entry,
so that another model, another limit or another version never finds it.

Processes share a folder without knowing of each other. Whoever has an entry holds a lock on it, which the system lifts
when the process ends however it ends; what nobody holds may be removed by anybody.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from winnow_inference.models.cache_retention import Kept, Retention
from winnow_inference.models.weights import sha256_of
from winnow_rpc import telemetry

log = telemetry.get_logger("winnow.inference")

_MANIFEST, _FACTS = "manifest.json", "facts.json"
# What a model is made of, as `locating` fetches it; a README changes nothing.
_PARTS = ("*.json", "*.txt", "*.model", "*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
# What says nothing of the model's results, and may be learned anew.
_APART = frozenset({"winnow.json"})
_ENTRY = re.compile(r"[0-9a-z]{64}")
_PLACE = re.compile(r"\.[0-9a-z]{64}\.\d+\.\d+")
# A folder is hardly ever another one by the time that its lock is there; one that always is bears no lock.
_MOST_CHANGES = 100
# No build takes so long; what is older was left by one that was killed.
_LONGEST_BUILD_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CacheEntry:
    """Files that were kept, whole and unchanged. They stay where they are as long as somebody has this."""

    folder: Path
    """Where they lie."""
    facts: Mapping[str, Any]
    """What was said of them."""


class ModelCache:
    """A folder of entries. Where it cannot be written, nothing is kept, and that is said once."""

    def __init__(
        self, folder: Path | None, *, prepared: Path | None = None, retention: Retention | None = None
    ) -> None:
        """`folder`: None takes the user's cache folder. `prepared`: another one, which is only read."""
        self._folder = (folder or user_cache_path("winnow")) / "models"
        self._prepared = prepared / "models" if prepared else None
        self._retention = retention or Retention()
        self._said = False

    def find(self, key: str) -> CacheEntry | None:
        """The entry of that key; None if there is none, or none that can be trusted. It counts as used now."""
        folder, found = self._folder / key, None
        with suppress(FileNotFoundError, NotADirectoryError):
            # Held while it is checked, so that nobody takes it away in the middle.
            lock = _lock(folder)
            found = self._sound(folder, ours=True)
            if found:
                with suppress(OSError):
                    os.utime(folder)
                _hold(found, lock)
            else:
                _unlock(lock)
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
        place = self._place(key)
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
        # The lock goes along with the folder.
        lock = _lock(place)
        try:
            place.rename(final)
        except OSError:  # another process was faster; its entry is as good
            _unlock(lock)
            lock = _lock(final)
        entry = CacheEntry(final, facts)
        _hold(entry, lock)
        return entry

    def remove_old(self, *, now: float | None = None) -> None:
        """Removes what is not to be kept and nobody has, in this process or in another, and logs it.

        `now`: seconds since the epoch, where it is not the time that it is.
        """
        now = time.time() if now is None else now
        unused, in_use = [], 0
        for folder in self._folders(_ENTRY):
            with suppress(OSError):
                if not (folder / _MANIFEST).is_file():
                    continue
                found = Kept(folder.name, folder.stat().st_mtime, _size(folder))
                lock = _lock(folder, alone=True)
                _unlock(lock)
                if lock is not None:
                    unused.append(found)
                else:
                    in_use += found.size
                    # Its age begins when the last of those who have it ends.
                    os.utime(folder, (now, now))
        for entry, why in self._retention.outlived(unused, in_use=in_use, now=now):
            if self._remove(entry):
                days = round((now - entry.last_used) / 86_400, 1)
                log.info("cache entry removed", reason=why, key=entry.key, bytes=entry.size, unused_days=days)
        for folder in self._folders(_PLACE):
            with suppress(OSError):
                if now - folder.stat().st_mtime > _LONGEST_BUILD_SECONDS:
                    shutil.rmtree(folder)

    def _folders(self, names: re.Pattern[str]) -> list[Path]:
        """Those of that form of name: others may lie here, and are nothing to us."""
        try:
            return [path for path in self._folder.iterdir() if names.fullmatch(path.name) and path.is_dir()]
        except OSError:
            return []

    def _remove(self, entry: Kept) -> bool:
        """Whether the entry was removed: not if it has been used since it was looked at."""
        folder, aside = self._folder / entry.key, self._place(entry.key)
        try:
            lock = _lock(folder, alone=True)
            if lock is None:
                return False
            try:
                if folder.stat().st_mtime != entry.last_used:
                    return False
                # Gone for all at once; who waits for the lock sees it.
                folder.rename(aside)
            finally:
                _unlock(lock)
        except OSError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _place(self, key: str) -> Path:
        """A folder of this thread alone, for what comes or goes."""
        return self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"


def _lock(folder: Path, *, alone: bool = False) -> int | None:
    """A lock on a folder, with others or alone; None if locks are not to be had here, or not alone.

    Waits for who has it alone, which takes a moment. Raises FileNotFoundError if there is no such folder.
    """
    for _ in range(_MOST_CHANGES):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.stat(folder).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        # Another one lies there by now, or none.
        os.close(descriptor)
    return None


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _hold(entry: CacheEntry, lock: int | None) -> None:
    """Keeps a lock for as long as somebody has the entry."""
    if lock is not None:
        weakref.finalize(entry, os.close, lock)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
