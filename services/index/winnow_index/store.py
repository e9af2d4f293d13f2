"""All collections and aliases in one data directory, which one process holds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import qdrant_edge as edge

from winnow_index import durable_files
from winnow_index.broken_collection import BrokenCollection
from winnow_index.changes import Operation
from winnow_index.collection import Collection
from winnow_index.definition import Configuration, Definition, DefinitionCodec
from winnow_index.disk_room import DiskRoom
from winnow_index.engine import Guard
from winnow_index.generations import CollectionDirectory
from winnow_index.probing import is_of_full_disk, probe
from winnow_rpc.faults import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.store")

_NEW, _GONE = ".new-", ".gone-"


class Store:
    """Made by `Store.open`."""

    def __init__(self, path: Path, codec: DefinitionCodec, lock: int, room: DiskRoom) -> None:
        self._path = path
        self._room = room
        self._codec = codec
        self._lock = lock
        self._collections: dict[str, Collection | BrokenCollection] = {}
        self._aliases: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self.on_write: Callable[[], None] = lambda: None
        """Called after each write to any collection."""

    @classmethod
    def open(cls, path: Path, codec: DefinitionCodec, *, reserve_bytes: int = 0) -> Store:
        """Opens or makes a data directory, on whose volume so many bytes are kept free.

        Raises FailedPrecondition if another process holds it or it cannot be written, DataLoss if its list of aliases
        cannot be read. A collection that cannot be opened is reported, answers DataLoss, and leaves the others alone.
        """
        lock = hold_directory(path)
        store = cls(path, codec, lock, DiskRoom(path, reserve_bytes))
        try:
            store._read_aliases()
            store._open_collections()
        except OSError as error:
            os.close(lock)
            raise _not_usable(path / "collections", error) from error
        except BaseException:
            os.close(lock)
            raise
        return store

    def __iter__(self) -> Iterator[Collection]:
        return iter([each for each in self._collections.values() if isinstance(each, Collection)])

    def names(self) -> list[str]:
        """Names of all collections, broken ones included."""
        return sorted(self._collections)

    def aliases(self) -> dict[str, str]:
        """Alias → collection."""
        return dict(self._aliases)

    def has(self, name: str) -> bool:
        """Whether there is a collection or alias of this name."""
        return self._aliases.get(name, name) in self._collections

    def get(self, name: str) -> Collection:
        """The collection of this name or alias. Raises NotFound, or DataLoss if it is broken."""
        found = self._collections.get(self._aliases.get(name, name))
        if found is None:
            raise _unknown(name)
        if isinstance(found, BrokenCollection):
            raise found.fault()
        return found

    async def create(self, name: str, configuration: Configuration) -> None:
        """Makes a collection.

        Raises AlreadyExists if the name is taken by a collection or an alias, Unavailable where the disk has no room or
        fails.
        """
        async with self._changing:
            if name in self._collections:
                raise AlreadyExists(
                    f"Wrong input: Collection `{name}` already exists!",
                    reason="COLLECTION_EXISTS",
                    metadata={"collection": name},
                )
            if name in self._aliases:
                raise AlreadyExists(
                    f"Wrong input: Can't create collection with name {name}. Alias with the same name already exists",
                    reason="ALIAS_EXISTS",
                )
            self._room.require()
            definition = Definition(name=name, configuration=configuration, created_at=time.time())
            identity = uuid.uuid4().hex
            fresh, final = self._folder / f"{_NEW}{identity}", self._folder / identity
            try:
                with _on_disk("create a collection"):
                    self._prepare(fresh, definition)
                    fresh.rename(final)
                    durable_files.sync_directory(self._folder)
                    self._collections[name] = self._load(final)
            except BaseException:
                for path in (fresh, final):
                    shutil.rmtree(path, ignore_errors=True)
                raise
        log.info("collection created", collection=name)

    def _prepare(self, path: Path, definition: Definition) -> None:
        path.mkdir()
        directory = CollectionDirectory(path)
        generation = directory.next_generation()
        with Guard("create a collection"):
            shard = edge.EdgeShard.create(str(generation), definition.configuration.engine_config(graph_revision=0))
            shard.flush()
            shard.close()
        directory.write_definition(self._codec.encode(definition))
        directory.switch(generation)
        durable_files.sync_tree(path)

    async def delete(self, name: str) -> bool:
        """Deletes a collection, its aliases with it; whether there was one. A broken one is deleted too.

        An alias is no name to delete by, as in Qdrant: what it leads to may have changed a moment ago.

        Cancelled while the collection's writers are waited for, it has changed nothing. Where the disk fails, the name
        stays taken, and deleting it once more goes on with what is left.
        """
        async with self._changing:
            found = self._collections.get(name)
            if found is None:
                return False
            if isinstance(found, Collection):
                with contextlib.suppress(Fault):
                    await found.close()
                paths: Sequence[Path] = [found.directory.path]
            else:
                paths = found.paths
            # Nothing is awaited from here until the name is free: a caller that goes away cannot leave half of it done.
            with _on_disk("delete a collection"):
                remaining = {alias: target for alias, target in self._aliases.items() if target != name}
                if remaining != self._aliases:
                    self._write_aliases(remaining)
                gone = [self._set_aside(path) for path in paths if path.exists()]
                durable_files.sync_directory(self._folder)
            del self._collections[name]
            log.info("collection deleted", collection=name)
            for path in gone:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        return True

    @staticmethod
    def _set_aside(path: Path) -> Path:
        """Makes a directory one that no start opens; its new path."""
        gone = path.with_name(f"{_GONE}{uuid.uuid4().hex}")
        return path.rename(gone)

    async def change_aliases(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replaces the aliases at once by what `change` makes of them. It may raise a fault; then nothing changes."""
        async with self._changing:
            changed = change(dict(self._aliases))
            for alias, target in changed.items():
                if self._aliases.get(alias) == target:
                    continue  # it may lead to a collection that cannot be read, which is no fault of this change
                if target not in self._collections:
                    raise _unknown(target)
                if alias in self._collections:
                    raise AlreadyExists(
                        f"Wrong input: Collection with name `{alias}` already exists; an alias needs a name of its own",
                        reason="COLLECTION_EXISTS",
                    )
            with _on_disk("change aliases"):
                self._write_aliases(changed)

    async def close(self) -> None:
        """Flushes and closes every collection, and lets go of the directory."""
        for collection in self:
            try:
                await collection.close()
            except Fault as fault:
                log.error("collection not closed well", collection=collection.name, cause=fault.message)
        os.close(self._lock)

    @property
    def _folder(self) -> Path:
        return self._path / "collections"

    def _read_aliases(self) -> None:
        path = self._path / "aliases.json"
        if not path.exists():
            return
        try:
            document = durable_files.read_json(path)
            self._aliases = {str(alias): str(target) for alias, target in document.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise DataLoss(f"{path} cannot be read: {error}", reason="ALIASES_CORRUPT") from error

    def _write_aliases(self, aliases: dict[str, str]) -> None:
        durable_files.write_json(self._path / "aliases.json", aliases)
        self._aliases = aliases

    def _open_collections(self) -> None:
        self._folder.mkdir(exist_ok=True)
        named: dict[str, list[Path]] = {}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith((_NEW, _GONE)):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                named.setdefault(self._stored_name(path), []).append(path)
        for name, paths in named.items():
            self._collections[name] = self._open_one(name, paths[0]) if len(paths) == 1 else _ambiguous(name, paths)

    def _stored_name(self, path: Path) -> str:
        """The name of the collection in a directory; the directory's own, if that cannot be read."""
        try:
            return self._codec.decode(CollectionDirectory(path).read_definition()).name
        except Exception:
            return path.name  # what is wrong with it is reported when it is opened

    def _open_one(self, name: str, path: Path) -> Collection | BrokenCollection:
        opening = path / "OPENING"
        try:
            lacks_room = self._room.lacks()
            if opening.exists() or lacks_room:
                # The last attempt to open it ended the process, or was interrupted, or this one may for want of a block
                # on the disk: let another process try first.
                probe(CollectionDirectory(path).current(), lacks_room=lacks_room)
            opening.touch()
            collection = self._load(path)
            opening.unlink()
        except Exception as error:
            cause = error.message if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                opening.unlink(missing_ok=True)
            log.error("collection broken", collection=name, directory=str(path), cause=cause)
            return BrokenCollection(name, [path], "what is stored is not readable", disk_full=is_of_full_disk(error))
        return collection

    def _load(self, path: Path) -> Collection:
        directory = CollectionDirectory(path)
        definition = self._codec.decode(directory.read_definition())
        generation = directory.current()
        if swept := directory.sweep():
            log.info("unfinished builds removed", collection=definition.name, generations=swept)
        began = time.perf_counter()
        with Guard("open a collection"):
            shard = edge.EdgeShard.load(str(generation))
        collection = Collection(
            directory=directory,
            definition=definition,
            codec=self._codec,
            shard=shard,
            generation=generation,
            room=self._room,
        )
        collection.on_write = self._written
        self._repair_indexes(collection)
        collection.written_since_count = collection.info().points_count
        log.info(
            "collection open",
            collection=definition.name,
            points=collection.written_since_count,
            millis=round((time.perf_counter() - began) * 1000, 1),
        )
        return collection

    def _written(self) -> None:
        # Looked up at each call: the optimizer sets it after collections were opened.
        self.on_write()

    @staticmethod
    def _repair_indexes(collection: Collection) -> None:
        """Creates indexes that the definition has and the shard has not so: a crash may have come between the two."""
        present = collection.info().payload_schema
        for field, index in collection.definition.indexes.items():
            if field not in present or present[field].data_type != index.engine_type:
                schema = index.engine_schema()
                collection.apply(Operation(edge.UpdateOperation.create_field_index(field, schema), 0))


def hold_directory(path: Path) -> int:
    """Takes a data directory for this process, made if it is not there; the descriptor that holds it while it is open.

    Raises FailedPrecondition if another process holds it or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _not_usable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise FailedPrecondition(
            f"the data directory {path} is in use by another process", reason="DATA_DIRECTORY_IN_USE"
        ) from error
    return descriptor


def _not_usable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"the data directory {path} cannot be written: {error.strerror}", reason="DATA_DIRECTORY_NOT_WRITABLE"
    )


@contextlib.contextmanager
def _on_disk(action: str) -> Iterator[None]:
    """Around what is done with files: what the disk refuses is Unavailable."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot {action}: the disk failed: {error.strerror}", reason="DISK_FAILED") from error


def _ambiguous(name: str, paths: Sequence[Path]) -> BrokenCollection:
    """Of several directories with one name, none is opened: whichever it were, what the others hold would be lost."""
    log.error("collection broken", collection=name, directories=[str(path) for path in paths], cause="ambiguous")
    return BrokenCollection(name, paths, "several directories hold a collection of this name, and one alone may")


def _unknown(name: str) -> NotFound:
    return NotFound(
        f"Not found: Collection `{name}` doesn't exist!",
        reason="COLLECTION_NOT_FOUND",
        metadata={"collection": name},
    )


def no_such_alias(name: str) -> InvalidArgument:
    """The fault for an alias that is not there."""
    return InvalidArgument(f"Wrong input: Alias `{name}` does not exist", field="alias_name", reason="ALIAS_NOT_FOUND")
