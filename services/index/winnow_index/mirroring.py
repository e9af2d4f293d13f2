"""Copies a directory that is being written to, in rounds: each copies what changed since the one before.

The last round is made while nobody writes, and is short because the others went ahead. Blocking; meant for a thread
(reading and writing files lets go of the interpreter's lock).
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

_BLOCK = 1024 * 1024
# A change so soon after the last look may leave the file's time as it was (the kernel's clock for files ticks every few
# milliseconds), so such a file is looked at again.
_TICK_NS = 100_000_000


class Mirror:
    """A copy of `source` at `target` that can be brought up to date."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target
        self._seen: dict[Path, tuple[int, int]] = {}
        self._trust_times: bool | None = None

    def update(self, *, last: bool = False) -> int:
        """Makes the copy equal to the source as it is now; the number of bytes written.

        Equal only if nobody writes meanwhile; else a further round is needed. With `last` there will be none, which
        saves waiting for the disk.
        """
        # Not the parents: a collection that was deleted meanwhile must not come back as an empty folder.
        self._target.mkdir(exist_ok=True)
        if self._trust_times is None:
            self._trust_times = mapped_writes_touch_times(self._target.parent)
        present: set[Path] = set()
        written = 0
        for folder, folders, names in os.walk(self._source):
            below = Path(folder).relative_to(self._source)
            for name in folders:
                (self._target / below / name).mkdir(exist_ok=True)
                present.add(below / name)
            for name in names:
                present.add(below / name)
                written += self._update_file(below / name, last=last)
        self._remove_others(present)
        return written

    def _update_file(self, relative: Path, *, last: bool) -> int:
        # The time from before the pages were cleaned: one that was written to since then is dirty, and changes again
        # without touching the file's time.
        began = time.time_ns()
        try:
            with (self._source / relative).open("rb") as source:
                # Pages must be clean for the next write through a mapping to touch the file's time.
                if not last:
                    os.fsync(source.fileno())
                state = os.fstat(source.fileno())
                seen = (state.st_mtime_ns, state.st_size)
                if self._trust_times and self._seen.get(relative) == seen:
                    return 0
                written = _copy_differences(source.fileno(), self._target / relative, state.st_size)
                settled = began - state.st_mtime_ns > _TICK_NS
                self._seen[relative] = seen if settled else (-1, -1)
                return written
        except FileNotFoundError:
            return 0  # removed since the folder was listed; the next round sees that

    def _remove_others(self, present: set[Path]) -> None:
        for folder, folders, names in os.walk(self._target, topdown=False):
            below = Path(folder).relative_to(self._target)
            for name in names:
                if below / name not in present:
                    (self._target / below / name).unlink()
            for name in folders:
                if below / name not in present:
                    shutil.rmtree(self._target / below / name, ignore_errors=True)


def _copy_differences(source: int, target: Path, size: int) -> int:
    """Writes only the blocks that differ. A new file starts as a hole, so holes stay holes."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o644)
    written = 0
    try:
        os.ftruncate(descriptor, size)
        for offset in range(0, size, _BLOCK):
            block = os.pread(source, _BLOCK, offset)
            if block != os.pread(descriptor, len(block), offset):
                os.pwrite(descriptor, block, offset)
                written += len(block)
    finally:
        os.close(descriptor)
    return written


def mapped_writes_touch_times(folder: Path) -> bool:
    """Whether a write through a mapping to a synced page changes the file's time. On tmpfs it does not."""
    import mmap

    path = folder / f".times-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with path.open("wb+") as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            with mmap.mmap(file.fileno(), mmap.PAGESIZE) as mapped:
                mapped[0] = 1
                os.fsync(file.fileno())
                before = os.fstat(file.fileno()).st_mtime_ns
                time.sleep(0.05)
                mapped[0] = 2
                return os.fstat(file.fileno()).st_mtime_ns != before
    finally:
        path.unlink(missing_ok=True)
