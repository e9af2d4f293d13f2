"""Snapshots: all collections in a folder, each as it was at one moment, taken while reads and writes go on.

    <snapshots>/full-snapshot-2026-11-24-08-43-02-000000/
        SHA256SUMS      a line a file, as `sha256sum --check` reads it
        aliases.json
        collections/    as in a data directory

A snapshot is a data directory: restored into an empty one, it is what the index starts from. It holds what was
acknowledged before it was asked for; what is written meanwhile may be in it or not.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from winnow_index import durable_files
from winnow_index.collection import Collection
from winnow_index.disk_room import DiskRoom, bytes_in
from winnow_index.mirroring import Mirror
from winnow_index.store import Store
from winnow_rpc.faults import Fault, NotFound, Unavailable
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.snapshots")

SUMS = "SHA256SUMS"
"""The list of checksums in a snapshot."""

_NAME = "full-snapshot-%Y-%m-%d-%H-%M-%S-%f"
_NEW = ".new-"
_SMALL_ROUND_BYTES = 8 * 1024 * 1024
_MOST_ROUNDS = 5
# A new graph that begins to serve in the middle of a copy makes the copy worthless. After so many, writers wait.
_MOST_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One that is complete and on disk."""

    name: str
    """Name of its folder."""
    created: datetime
    """When it was asked for."""
    size: int
    """Bytes that it takes on disk."""
    checksum: str
    """SHA-256 of its list of checksums, so of everything in it."""


class Snapshots:
    """Takes, lists and deletes snapshots of a store, one at a time."""

    def __init__(self, store: Store, folder: Path, *, reserve_bytes: int = 0) -> None:
        self._store = store
        self._room = DiskRoom(folder, reserve_bytes)
        self._folder = folder
        self._turn = asyncio.Lock()

    def sweep(self) -> None:
        """Removes the remains of one that was interrupted."""
        for path in self._folder.glob(f"{_NEW}*"):
            shutil.rmtree(path, ignore_errors=True)

    async def create(self) -> Snapshot:
        """Takes a snapshot; it is on disk when this returns.

        Raises DataLoss if a collection cannot be read, since a backup without it would pass for one of everything, and
        Unavailable if the disk fails or is full. Nothing is left of what failed.
        """
        async with self._turn:
            self.sweep()
            began = time.perf_counter()
            name = datetime.now(UTC).strftime(_NAME)
            fresh = self._folder / f"{_NEW}{name}"
            try:
                await asyncio.to_thread((fresh / "collections").mkdir, parents=True)
                for collection in self._store.names():
                    await self._add(collection, fresh)
                self._add_aliases(fresh)
                await asyncio.to_thread(_seal, fresh)
                fresh.rename(self._folder / name)
                durable_files.sync_directory(self._folder)
            except OSError as error:
                raise Unavailable(
                    f"the snapshot could not be written: {error.strerror}", reason="DISK_FAILED"
                ) from error
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True))
        made = self._describe(self._folder / name)
        seconds = round(time.perf_counter() - began, 2)
        log.info("snapshot taken", snapshot=name, size=made.size, seconds=seconds)
        return made

    def list(self) -> list[Snapshot]:
        """Those that there are, oldest first."""
        return [self._describe(path) for path in self._paths()]

    async def delete(self, name: str) -> None:
        """Deletes one. Raises NotFound."""
        path = next((path for path in self._paths() if path.name == name), None)
        if path is None:
            raise NotFound(f"Not found: there is no snapshot `{name}`", reason="SNAPSHOT_NOT_FOUND")
        gone = path.with_name(f"{_NEW}{name}")
        path.rename(gone)
        durable_files.sync_directory(self._folder)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        log.info("snapshot deleted", snapshot=name)

    def _paths(self) -> Iterator[Path]:
        yield from sorted(path for path in self._folder.glob("full-snapshot-*") if (path / SUMS).is_file())

    @staticmethod
    def _describe(path: Path) -> Snapshot:
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        return Snapshot(
            name=path.name,
            created=datetime.strptime(path.name, _NAME).replace(tzinfo=UTC),
            size=sum(each.st_blocks * 512 for each in files),
            checksum=hashlib.sha256((path / SUMS).read_bytes()).hexdigest(),
        )

    async def _add(self, name: str, fresh: Path) -> None:
        try:
            collection = self._store.get(name)
        except NotFound:
            return  # deleted since the names were read
        target = fresh / "collections" / collection.directory.path.name
        try:
            self._room.require(await asyncio.to_thread(bytes_in, collection.generation))
            await _copy(collection, target)
        except Fault as fault:
            if self._store.has(name):
                raise
            log.info("collection deleted while it was copied", collection=name, cause=fault.message)
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)

    def _add_aliases(self, fresh: Path) -> None:
        copied = {path.name for path in (fresh / "collections").iterdir()}
        known = {each.name for each in self._store if each.directory.path.name in copied}
        aliases = {alias: target for alias, target in self._store.aliases().items() if target in known}
        durable_files.write_json(fresh / "aliases.json", aliases)


async def _copy(collection: Collection, target: Path) -> None:
    """Copies a collection in rounds while it is written to; the last round, short, with writers held.

    Raises NotFound if the collection is deleted meanwhile.
    """
    await asyncio.to_thread(target.mkdir)
    for tries in range(1, _MOST_TRIES + 1):
        generation = collection.generation
        mirror = Mirror(generation, target / generation.name)
        for _ in range(_MOST_ROUNDS):
            if await asyncio.to_thread(mirror.update) < _SMALL_ROUND_BYTES:
                break
        async with collection.lock:
            _ = collection.shard  # raises if it was deleted
            if collection.generation == generation or tries == _MOST_TRIES:
                serving = collection.generation
                if serving != generation:
                    await asyncio.to_thread(shutil.rmtree, target / generation.name, ignore_errors=True)
                    mirror = Mirror(serving, target / serving.name)
                # Nobody writes now, so the files are what a crash would leave: the engine's log makes them good.
                await asyncio.to_thread(mirror.update, last=True)
                shutil.copy2(collection.directory.path / "config.json", target)
                durable_files.write_text(target / "CURRENT", f"{serving.name}\n")
                return
        await asyncio.to_thread(shutil.rmtree, target / generation.name, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Writes the checksums, and puts everything on disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{checksum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    durable_files.write_text(folder / SUMS, "".join(lines))
    durable_files.sync_tree(folder)


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
