"""A collection that could not be opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from winnow_rpc.faults import DataLoss, FailedPrecondition


@dataclass(frozen=True)
class BrokenCollection:
    """A collection that could not be opened. It is left on disk as it is."""

    name: str
    paths: Sequence[Path]
    """Where its files are: one directory, or all those that claim to be it."""
    cause: str
    disk_full: bool = False
    """There was no room on the disk, which is cause enough: nothing says that what is stored is damaged."""

    def fault(self) -> DataLoss | FailedPrecondition:
        """What a caller is told."""
        if self.disk_full:
            # Not Unavailable, which would tell callers to leave the whole index alone for a while.
            return FailedPrecondition(
                f"Collection `{self.name}` could not be opened: the disk is full; make room and start the index again",
                reason="DISK_FULL",
                metadata={"collection": self.name},
            )
        directories = ", ".join(path.name for path in self.paths)
        return DataLoss(
            f"Collection `{self.name}` cannot be opened: {self.cause}; its files in {directories} are left alone",
            reason="COLLECTION_CORRUPT",
            metadata={"collection": self.name, "directory": directories},
        )
