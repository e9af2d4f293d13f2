"""A snapshot back into a data directory, checked file by file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from winnow_index import durable_files
from winnow_index.mirroring import Mirror
from winnow_index.snapshots import SUMS, checksum
from winnow_index.store import hold_directory
from winnow_rpc.faults import DataLoss, FailedPrecondition, InvalidArgument, Unavailable

_ARRIVING = ".restoring"


def restore(snapshot: Path, data: Path) -> int:
    """Copies a snapshot into a data directory that holds no collections; how many it holds then. All or nothing.

    Raises InvalidArgument if there is no snapshot, FailedPrecondition if the directory is in use or has collections,
    DataLoss if the snapshot is not what it was when it was taken, Unavailable if the disk fails or is full.
    """
    if not (snapshot / SUMS).is_file():
        raise InvalidArgument(f"{snapshot} is no snapshot: it has no {SUMS}", field="snapshot", reason="NOT_A_SNAPSHOT")
    held = hold_directory(data)
    arriving = data / _ARRIVING
    try:
        # The collections come last. Aliases without them, beside what has arrived, are of a restore that was cut short.
        begun = arriving.exists()
        if any((data / "collections").glob("*")) or ((data / "aliases.json").exists() and not begun):
            raise FailedPrecondition(
                f"{data} holds collections already: restore into an empty directory", reason="DATA_DIRECTORY_NOT_EMPTY"
            )
        shutil.rmtree(arriving, ignore_errors=True)
        # Holes stay holes, which `cp` may not see to.
        Mirror(snapshot, arriving).update(last=True)
        _check(arriving)
        durable_files.sync_tree(arriving)
        if (data / "collections").exists():
            (data / "collections").rmdir()
        (arriving / "aliases.json").rename(data / "aliases.json")
        (arriving / "collections").rename(data / "collections")
        durable_files.sync_directory(data)
        return len(list((data / "collections").iterdir()))
    except OSError as error:
        raise Unavailable(f"the snapshot could not be restored: {error}", reason="DISK_FAILED") from error
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
        os.close(held)


def _check(folder: Path) -> None:
    """Raises DataLoss unless the files are those that the list names, byte by byte."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    listed = {name: summed for summed, _, name in (line.partition("  ") for line in lines)}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {SUMS}
    for name in sorted(listed.keys() | present):
        if name not in listed or name not in present or checksum(folder / name) != listed[name]:
            raise DataLoss(
                f"the snapshot is damaged: {name} is not as it was when the snapshot was taken",
                reason="SNAPSHOT_DAMAGED",
                metadata={"file": name},
            )
