"""What a cache of models keeps, and what it removes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.unit.inference.cache_entries import KEY, is_whole, writes
from winnow_inference.models.cache_retention import Retention
from winnow_inference.models.model_cache import CacheEntry, ModelCache


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path)


DAY = 86_400.0


def keys(folder: Path) -> set[str]:
    return {path.name[0] for path in (folder / "models").iterdir()}


def unused_for(folder: Path, key: str, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(folder / "models" / key, (then, then))


def made(cache: ModelCache, *names: str) -> None:
    for name in names:
        cache.make(name * 64, writes)


def test_what_was_not_used_for_long_is_removed_and_that_is_said(cache: ModelCache, tmp_path: Path) -> None:
    made(cache, "a", "b")
    unused_for(tmp_path, "a" * 64, 31)
    unused_for(tmp_path, "b" * 64, 29)
    with capture_logs() as logs:
        cache.remove_old()
    assert keys(tmp_path) == {"b"}
    [line] = logs
    assert (line["event"], line["key"], line["unused_days"]) == ("cache entry removed", "a" * 64, 31.0)
    assert line["bytes"] > 7000
    assert cache.find("a" * 64) is None


def test_what_is_found_counts_as_used(cache: ModelCache, tmp_path: Path) -> None:
    made(cache, "a")
    unused_for(tmp_path, "a" * 64, 31)
    assert is_whole(cache.find("a" * 64))
    cache.remove_old()
    assert keys(tmp_path) == {"a"}


def test_beyond_a_size_what_was_used_least_recently_is_removed(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, retention=Retention(days=0, size=20_000))
    made(cache, "a", "b", "c")
    for age, name in enumerate("bca"):
        unused_for(tmp_path, name * 64, 1000 - age)
    cache.remove_old()
    assert keys(tmp_path) == {"c", "a"}


def test_without_limits_nothing_is_removed(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, retention=Retention(days=0, size=0))
    made(cache, "a", "b")
    unused_for(tmp_path, "a" * 64, 10_000)
    cache.remove_old()
    assert keys(tmp_path) == {"a", "b"}


def test_what_somebody_has_stays_however_old_and_large_and_begins_to_age_when_he_lets_go(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, retention=Retention(days=1, size=1))
    held: CacheEntry | None = cache.make(KEY, writes)
    found = cache.find(KEY)
    for _ in range(2):
        unused_for(tmp_path, KEY, 100)
        ModelCache(tmp_path, retention=Retention(days=1, size=1)).remove_old()
        assert is_whole(found if held is None else held)
        held = None
    found = None
    ModelCache(tmp_path, retention=Retention(days=1, size=0)).remove_old()
    assert keys(tmp_path) == {"k"}, "it was in use a moment ago"
    cache.remove_old()
    assert keys(tmp_path) == set()


USER = """
import pathlib, sys
from winnow_inference.models.model_cache import ModelCache
entry = ModelCache(pathlib.Path(sys.argv[1])).find("k" * 64)
print("has it" if entry else "has it not", flush=True)
sys.stdin.read()
"""


def test_what_another_process_has_stays_until_that_is_killed(cache: ModelCache, tmp_path: Path) -> None:
    made(cache, "k")
    command = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "has it\n"
            unused_for(tmp_path, KEY, 31)
            cache.remove_old()
            assert keys(tmp_path) == {"k"}
        finally:
            process.kill()
    unused_for(tmp_path, KEY, 31)
    cache.remove_old()
    assert keys(tmp_path) == set()


def test_who_looks_for_what_is_just_being_removed_finds_it_whole_or_not_at_all(tmp_path: Path) -> None:
    """Some remove whatever nobody has, others find and make; nobody is ever left with a part of it."""
    cache = ModelCache(tmp_path, retention=Retention(days=0, size=1))
    over, wrong = threading.Event(), list[str]()

    def use() -> None:
        while not over.is_set():
            entry = cache.find(KEY) or cache.make(KEY, writes)
            if not is_whole(entry):
                wrong.append(str(entry))
            del entry

    def remove() -> None:
        while not over.is_set():
            cache.remove_old()

    threads = [threading.Thread(target=each) for each in (use, use, remove, remove)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    over.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []


def test_remains_of_a_killed_build_go_after_a_day_and_what_is_not_ours_stays(cache: ModelCache, tmp_path: Path) -> None:
    remains, others = tmp_path / "models" / f".{KEY}.1.2", tmp_path / "models" / "my-model"
    unknown = tmp_path / "models" / ("u" * 64)
    for folder in (remains, others, unknown):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"x")
    cache.remove_old()
    assert remains.is_dir()
    for folder in (remains, others, unknown):
        os.utime(folder, (0, 0))
    cache.remove_old()
    assert not remains.exists()
    assert others.is_dir()
    assert unknown.is_dir()


def test_a_cache_that_is_not_there_or_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    ModelCache(tmp_path / "nowhere").remove_old()
    (tmp_path / "file").write_text("")
    ModelCache(tmp_path / "file").remove_old()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
