"""Builds graphs beside the serving shard and swaps them in, one collection at a time.

1. The serving directory is copied in rounds while writes go on; the last round, short, with writers held.
2. From then on writes are also put in a journal. A process of its own builds the graph in the copy.
3. The journal is replayed on the result in small slices; the last of it with writers held; then CURRENT names the new
   generation and it serves. Until that moment the old one is the truth, so a crash at any point costs only the build.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import qdrant_edge as edge

from winnow_index import durable_files
from winnow_index.collection import Collection, Journal
from winnow_index.definition import Definition
from winnow_index.disk_room import bytes_in
from winnow_index.engine import Guard
from winnow_index.mirroring import Mirror
from winnow_index.store import Store
from winnow_rpc.faults import Fault
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.optimizing")

_SLICE_SECONDS = 0.008
_SMALL_ROUND_BYTES = 8 * 1024 * 1024
_MOST_ROUNDS = 5
_BYTES_PER_FLOAT = 4

BuildOutcome: TypeAlias = Literal["built", "abandoned"]


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How builds are paced."""

    journal_bytes: int = 512 * 1024 * 1024
    """Most memory for writes that arrive during a build; past it the build is given up and tried again later."""
    interval: float = 0.5
    """Seconds between two looks for work."""
    retry_seconds: float = 5.0
    """Wait after a first failed build; doubles with each further one, to five minutes."""


class BuildAbandoned(Exception):
    """A build that did not succeed, and why."""


@dataclass
class _Pace:
    """When a collection may be built next."""

    not_before: float = 0.0
    failures: int = 0
    fruitless_at: int = 0
    """Unindexed vectors at which the engine saw nothing to do."""


class Optimizer:
    """Looks for collections that need a graph, and builds it."""

    def __init__(self, store: Store, options: OptimizerOptions) -> None:
        self._store = store
        self._options = options
        self._paces: dict[Path, _Pace] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        store.on_write = self._wake.set
        self.on_build: Callable[[BuildOutcome, float], None] = lambda outcome, seconds: None
        """Called with every build that has ended and its seconds."""

    def start(self) -> None:
        """Begins to look for work."""
        self._task = asyncio.create_task(self._run(), name="optimizer")

    async def stop(self) -> None:
        """Ends a build in progress, its process included, and looks no more."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def wants_build(self, collection: Collection) -> bool:
        """Whether the collection's graph is missing, too small, or older than its payload indexes."""
        definition = collection.definition
        configuration = definition.configuration
        threshold = configuration.indexing_threshold_kb * 1024
        if not configuration.schema.dense or threshold <= 0:
            return False
        if definition.graph_lags:
            return True
        points = collection.info().points_count
        deleted = collection.deleted_since_build
        if deleted > configuration.vacuum_min_vectors and deleted > configuration.deleted_threshold * (
            points + deleted
        ):
            return True
        widest = max(each.size for each in configuration.schema.dense.values()) * _BYTES_PER_FLOAT
        names = len(configuration.schema.dense)
        if collection.written_since_count * widest <= threshold:
            return False
        unindexed = max(0, collection.dense_vectors() - collection.graph_vectors())
        collection.written_since_count = -(-unindexed // names)
        if collection.written_since_count * widest <= threshold:
            return False
        return unindexed > 1.25 * self._pace(collection).fruitless_at

    def _pace(self, collection: Collection) -> _Pace:
        return self._paces.setdefault(collection.directory.path, _Pace())

    def _forget_deleted(self) -> None:
        there = {collection.directory.path for collection in self._store}
        self._paces = {path: pace for path, pace in self._paces.items() if path in there}

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._forget_deleted()
            for collection in self._store:
                try:
                    due = time.monotonic() >= self._pace(collection).not_before and self.wants_build(collection)
                except Fault:
                    continue  # deleted a moment ago
                if due:
                    await self._build(collection)
            # Further looks are paced: one that was just given up is not tried at once.
            await asyncio.sleep(self._options.interval)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10 * self._options.interval):
                    await self._wake.wait()

    async def _build(self, collection: Collection) -> None:
        pace, began = self._pace(collection), time.monotonic()
        try:
            target = collection.directory.next_generation()
        except OSError as error:
            pace.not_before = began + self._options.retry_seconds
            log.warning("build not begun", collection=collection.name, cause=error.strerror)
            return
        collection.building = True
        try:
            optimized = await self._build_at(collection, target)
        except BuildAbandoned as error:
            pace.failures += 1
            wait = min(self._options.retry_seconds * 2 ** (pace.failures - 1), 300.0)
            pace.not_before = time.monotonic() + wait
            collection.build_error = str(error)
            self.on_build("abandoned", time.monotonic() - began)
            log.warning("build given up", collection=collection.name, cause=str(error), retry_seconds=wait)
        else:
            took = time.monotonic() - began
            self.on_build("built", took)
            # At most half of the time is spent building, however fast points arrive.
            pace.not_before = time.monotonic() + min(took, 60.0)
            pace.failures = 0
            collection.build_error = None
            with contextlib.suppress(Fault):
                unindexed = collection.dense_vectors() - collection.graph_vectors()
                pace.fruitless_at = 0 if optimized else unindexed
                log.info("graph built", collection=collection.name, seconds=round(took, 2), unindexed=unindexed)
        finally:
            collection.building = False
            collection.end_journal()
            if collection.generation != target:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, target, ignore_errors=True))

    async def _build_at(self, collection: Collection, target: Path) -> bool:
        try:
            journal, definition = await self._copy(collection, target)
            goal = _goal(definition)
            optimized = await _optimize_in_child(target, goal)
            await asyncio.to_thread(durable_files.sync_tree, target)
            await self._swap(collection, target, journal, started_from=definition, goal=goal)
        except Fault as fault:
            raise BuildAbandoned(fault.message) from fault
        except OSError as error:
            raise BuildAbandoned(f"the disk failed: {error.strerror}") from error
        except (ValueError, KeyError, RuntimeError) as error:
            # A mistake of ours must not end the task that builds for all collections.
            log.exception("build failed", collection=collection.name)
            raise BuildAbandoned(f"the build failed: {type(error).__name__}") from error
        return optimized

    async def _copy(self, collection: Collection, target: Path) -> tuple[Journal, Definition]:
        # Of what the graph itself needs the engine makes sure.
        collection.room.require(await asyncio.to_thread(bytes_in, collection.generation))
        mirror = Mirror(collection.generation, target)
        for _ in range(_MOST_ROUNDS):
            if await asyncio.to_thread(mirror.update) < _SMALL_ROUND_BYTES:
                break
        async with collection.lock:
            began = time.perf_counter()
            # Nor is the engine flushed, which would hold the event loop: with nobody writing, the files are what a
            # crash would leave, and the engine's log makes them good when the copy is opened.
            await asyncio.to_thread(mirror.update, last=True)
            _log_hold("copy", began)
            return collection.begin_journal(self._options.journal_bytes), collection.definition

    async def _swap(
        self, collection: Collection, target: Path, journal: Journal, *, started_from: Definition, goal: Definition
    ) -> None:
        with Guard("open a built graph"):
            fresh = edge.EdgeShard.load(str(target))
        try:
            await asyncio.sleep(0)
            await _replay(fresh, journal)
            await asyncio.to_thread(durable_files.sync_tree, target)
            async with collection.lock:
                began = time.perf_counter()
                await _replay(fresh, journal)
                if journal.broken:
                    raise BuildAbandoned(journal.broken)
                # What was replayed is in the log of the new generation; on disk before it becomes the truth.
                await asyncio.to_thread(durable_files.sync_folder, target / "wal")
                _ = collection.shard  # raises if the collection was deleted meanwhile
                definition = _merged(collection.definition, started_from, goal)
                _make_current(collection, target)
                # Nothing that can fail stands between the new CURRENT and serving from it.
                former_path = collection.generation
                former = collection.swap(fresh, target, definition)
                _log_hold("swap", began)
        except BaseException:
            with contextlib.suppress(Fault), Guard("close a built graph"):
                fresh.close()
            raise
        try:
            async with collection.lock:
                collection.save(collection.definition)
        except Fault as fault:
            # The graph is newer than the definition on disk says: after a restart that costs another build.
            log.warning("definition not saved", collection=collection.name, cause=fault.message)
        with contextlib.suppress(Fault), Guard("close the former graph"):
            former.close()
        await asyncio.to_thread(shutil.rmtree, former_path, ignore_errors=True)


def _make_current(collection: Collection, target: Path) -> None:
    """Makes a generation the truth on disk. Raises OSError only if the former one still is."""
    try:
        collection.directory.switch(target)
    except OSError:
        # The new name may be in place, and only its way to the disk have failed: then there is no way back.
        if collection.directory.current() != target:
            raise


def _log_hold(step: str, began: float) -> None:
    """How long writers were held."""
    log.info("writers held", step=step, millis=round((time.perf_counter() - began) * 1000, 1))


def _goal(definition: Definition) -> Definition:
    """The definition that the build reaches: a lagging graph is built from nothing."""
    if not definition.graph_lags:
        return definition
    return replace(definition, graph_revision=definition.graph_revision + 1, graph_lags=False)


def _merged(now: Definition, started_from: Definition, goal: Definition) -> Definition:
    """The definition after the swap: lagging still, if indexes or settings came while the graph was being built."""
    came_later = any(started_from.indexes.get(name) != index for name, index in now.indexes.items())
    changed = now.configuration is not started_from.configuration
    return replace(now, graph_revision=goal.graph_revision, graph_lags=came_later or changed)


async def _replay(shard: edge.EdgeShard, journal: Journal) -> None:
    """Applies what the journal holds, in slices."""
    breath = time.perf_counter()
    while journal.operations:
        with Guard("replay a write"):
            shard.update(journal.take().update)
        if time.perf_counter() - breath > _SLICE_SECONDS:
            await asyncio.sleep(0)
            breath = time.perf_counter()


async def _optimize_in_child(directory: Path, goal: Definition) -> bool:
    """Builds the graph in a process of its own; whether there was anything to do. Raises BuildAbandoned."""
    job = {
        "directory": str(directory),
        "config": goal.configuration.document(),
        "graph_revision": goal.graph_revision,
        "parent": os.getpid(),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "winnow_index.optimizer_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await child.communicate(json.dumps(job).encode() + b"\n")
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())
    if child.returncode != 0:
        log.error("optimizer process failed", status=child.returncode, stderr=err.decode(errors="replace")[-2000:])
        raise BuildAbandoned(f"the process that builds the graph ended with status {child.returncode}")
    return bool(json.loads(out)["optimized"])
