"""Whether what is stored can be opened: tried in a process that may die of it, and for what reason it did."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

from winnow_rpc.faults import DataLoss, Fault, Unavailable

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def probe(generation: Path, *, lacks_room: bool) -> None:
    """Opens a shard in a process of its own, which may die of it. Raises DataLoss if it does, or Unavailable if it died
    for want of room on the disk."""
    ended = subprocess.run(
        [sys.executable, "-m", "winnow_index.optimizer_process", "probe", str(generation)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    # A file that was cut short ends it with the same signal, where there is room.
    found_no_block = ended.returncode == -signal.SIGBUS and lacks_room
    if found_no_block or (ended.returncode != 0 and _tells_of_no_room(ended.stderr)):
        raise Unavailable(
            f"opening {generation} ended a process with status {ended.returncode}: the disk is full", reason="DISK_FULL"
        )
    if ended.returncode != 0:
        raise DataLoss(
            f"opening {generation} ended a process with status {ended.returncode}", reason="COLLECTION_CORRUPT"
        )


def is_of_full_disk(error: BaseException | None) -> bool:
    """Whether want of room on the disk is what an error, or the one that it came from, tells of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if isinstance(error, Fault) and error.reason == "DISK_FULL":
            return True
        # The engine's errors have the system's words alone.
        if _tells_of_no_room(str(error)):
            return True
        error = error.__cause__
    return False


def _tells_of_no_room(said: str) -> bool:
    return any(os.strerror(code) in said for code in _NO_ROOM)
