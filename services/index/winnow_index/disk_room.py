"""Room on the disk, of which a part is kept free.

The engine writes through mappings of files with holes. A page for which the disk has no block left ends the process, in
the middle of anything; so no write is begun that might meet a full disk.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from winnow_rpc.faults import Unavailable

# What an operation takes at most, as a multiple of its size: in the log, in the data, in indexes.
_WRITTEN_TIMES = 4


@dataclass(frozen=True)
class DiskRoom:
    """The volume of a folder."""

    folder: Path
    reserve_bytes: int = 0
    """Bytes that are kept free; 0 keeps none."""

    def lacks(self, size: int = 0) -> bool:
        """Whether what is kept free would be touched by `size` bytes more."""
        if not self.reserve_bytes:
            return False
        volume = os.statvfs(self.folder)
        return volume.f_bavail * volume.f_frsize < self.reserve_bytes + size

    def require(self, size: int = 0) -> None:
        """Raises Unavailable if there is no room for `size` bytes more."""
        if self.lacks(size):
            raise disk_full()

    def require_for_write(self, size: int) -> None:
        """Raises Unavailable if there is no room for an operation of that size."""
        self.require(_WRITTEN_TIMES * size)


def disk_full() -> Unavailable:
    """The fault for a volume without room."""
    return Unavailable(
        "the disk of the index is full, but for the reserve: make room, or delete a collection or a snapshot",
        reason="DISK_FULL",
    )


def bytes_in(folder: Path) -> int:
    """What a folder takes up, not the lengths of its files: the engine's have holes."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue  # a build swapped it away
    return total
