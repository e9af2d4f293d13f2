"""One collection: an open shard, its writers in turn, and the syncs that they share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import qdrant_edge as edge

from winnow_index.changes import Change, Operation
from winnow_index.definition import Definition, DefinitionCodec, PayloadIndex
from winnow_index.disk_room import DiskRoom
from winnow_index.engine import Guard, PointId
from winnow_index.generations import CollectionDirectory
from winnow_index.shared_sync import SharedSync
from winnow_rpc.faults import Fault, NotFound, Unavailable
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.index.collection")

# A writer lets others run after holding the event loop for so long.
_BREATH_SECONDS = 0.008
# Written since the last flush, past which the engine is flushed at once: what a start after a crash has to replay.
_UNFLUSHED_BYTES = 64 * 1024 * 1024


class Journal:
    """Operations applied to the serving shard since a copy of it was made."""

    def __init__(self, limit_bytes: int) -> None:
        self.operations: deque[Operation] = deque()
        self.size = 0
        self.broken: str | None = None
        """Why the copy can no longer catch up; None while it can."""
        self._limit = limit_bytes

    def append(self, operation: Operation) -> None:
        """Remembers an operation, unless that would outgrow the limit: then nothing more is kept."""
        if self.broken:
            return
        self.size += operation.size
        if self.size > self._limit:
            self.give_up(f"more than {self._limit} bytes were written while the graph was being built")
            return
        self.operations.append(operation)

    def give_up(self, reason: str) -> None:
        """Makes the copy useless and frees the memory."""
        self.broken = reason
        self.operations.clear()

    def take(self) -> Operation:
        """The oldest operation, which is forgotten."""
        operation = self.operations.popleft()
        self.size -= operation.size
        return operation


class Collection:
    """Reads go straight to the shard; writes hold the lock; both run on the event loop, as every call holds the GIL."""

    def __init__(
        self,
        *,
        directory: CollectionDirectory,
        definition: Definition,
        codec: DefinitionCodec,
        shard: edge.EdgeShard,
        generation: Path,
        room: DiskRoom,
    ) -> None:
        self.directory = directory
        self.room = room
        self.definition = definition
        self.generation = generation
        """Directory of the serving shard."""
        self.lock = asyncio.Lock()
        """Held by whoever changes the shard. Fair: first come, first served."""
        self.journal: Journal | None = None
        self.building = False
        self.build_error: str | None = None
        """Why the last build failed; None if it did not."""
        self.written_since_count = 0
        """Points written since the unindexed ones were last counted."""
        self.deleted_since_build = 0
        self._codec = codec
        self._shard: edge.EdgeShard | None = shard
        self._sync = SharedSync(self.lock, lambda: self.generation / "wal")
        self._checkpoint: asyncio.Task[None] | None = None
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._unflushed_bytes = 0
        self._operation_id = 0
        self.on_write: Callable[[], None] = lambda: None
        """Called after each write; tells the optimizer that there may be work."""

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.definition.name

    @property
    def shard(self) -> edge.EdgeShard:
        """The serving shard. Never keep it across an await: it may be swapped. Raises NotFound after deletion."""
        if self._shard is None:
            raise NotFound(
                f"Not found: Collection `{self.name}` doesn't exist!",
                reason="COLLECTION_NOT_FOUND",
                metadata={"collection": self.name},
            )
        return self._shard

    def info(self) -> edge.ShardInfo:
        """Counts of the serving shard."""
        with Guard("describe a collection"):
            return self.shard.info()

    async def write(self, changes: Sequence[Change], *, wait: bool) -> int:
        """Applies changes in order, none of another writer between them; the operation's number.

        With `wait` they are on disk when this returns, else soon after. Points that were named and are not there are a
        NotFound, after everything else was applied, as in Qdrant. Raises Unavailable where the disk has no room.
        """
        missing: list[PointId] = []
        async with self.lock:
            for change in changes:
                await self._apply_all(change, missing)
            self._operation_id += 1
            number = self._operation_id
        self.on_write()
        await self._settle(wait=wait)
        if missing:
            raise NotFound(
                f"Not found: No point with id {missing[0]} found",
                reason="POINT_NOT_FOUND",
                metadata={"id": str(missing[0]), "missing": str(len(missing))},
            )
        return number

    async def _apply_all(self, change: Change, missing: list[PointId]) -> None:
        breath = time.perf_counter()
        operations = change.operations(self.shard, missing)
        while True:
            with Guard("resolve a change"):
                operation = next(operations, None)
            if operation is None:
                return
            self.room.require_for_write(max(operation.size, operation.on_disk))
            self.apply(operation)
            if time.perf_counter() - breath > _BREATH_SECONDS:
                await asyncio.sleep(0)
                breath = time.perf_counter()

    def apply(self, operation: Operation) -> None:
        """Applies one operation to the serving shard, and to the journal while there is one. The lock must be held."""
        try:
            with Guard("apply a write"):
                self.shard.update(operation.update)
        except Fault:
            # The engine may have applied a part of it, which a replay might not.
            if self.journal is not None:
                self.journal.give_up("the engine refused a write")
            raise
        if self.journal is not None:
            self.journal.append(operation)
        self._unflushed_bytes += operation.size
        self.written_since_count += operation.written
        self.deleted_since_build += operation.deleted

    async def redefine(self, make: Callable[[Definition], Definition]) -> None:
        """Changes the definition, on disk when this returns."""
        async with self.lock:
            self.save(make(self.definition))
        self.on_write()

    async def create_index(self, field: str, index: PayloadIndex, *, wait: bool) -> int:
        """Indexes a field of the payload. A graph that exists already is then built anew, complete."""
        operation = Operation(edge.UpdateOperation.create_field_index(field, index.engine_schema()), 256)
        async with self.lock:
            self.room.require()
            definition = self.definition
            if definition.indexes.get(field) != index:
                lags = definition.graph_lags or self.building or self.graph_vectors() > 0
                # Before the engine: a definition ahead of its shard is repaired at the next start.
                self.save(replace(definition, indexes={**definition.indexes, field: index}, graph_lags=lags))
            self.apply(operation)
            self._operation_id += 1
            number = self._operation_id
        self.on_write()
        await self._settle(wait=wait)
        return number

    async def delete_index(self, field: str, *, wait: bool) -> int:
        """Removes an index from a field of the payload; one that is not there is no error, as in Qdrant."""
        async with self.lock:
            self.apply(Operation(edge.UpdateOperation.delete_field_index(field), 256))
            remaining = {name: index for name, index in self.definition.indexes.items() if name != field}
            self.save(replace(self.definition, indexes=remaining))
            self._operation_id += 1
            number = self._operation_id
        await self._settle(wait=wait)
        return number

    def save(self, definition: Definition) -> None:
        """Replaces the definition, in memory and on disk. The lock must be held."""
        try:
            self.directory.write_definition(self._codec.encode(definition))
        except OSError as error:
            raise Unavailable(
                f"the definition of collection {self.name!r} could not be written to disk", reason="DISK_FAILED"
            ) from error
        self.definition = definition

    def graph_vectors(self) -> int:
        """How many dense vectors the graph holds. Sparse vectors are always indexed, and counted with them."""
        shard, schema = self.shard, self.definition.configuration.schema
        with Guard("count vectors"):
            indexed = shard.info().indexed_vectors_count
            for name in schema.sparse:
                if indexed <= 0:
                    break
                having = edge.Filter(must=[edge.HasVectorCondition(name)])
                indexed -= shard.count(edge.CountRequest(exact=True, filter=having))
        return max(indexed, 0)

    def dense_vectors(self) -> int:
        """How many dense vectors there are."""
        shard, schema = self.shard, self.definition.configuration.schema
        with Guard("count vectors"):
            if len(schema.dense) == 1 and not schema.sparse:
                return shard.info().points_count
            return sum(
                shard.count(edge.CountRequest(exact=True, filter=edge.Filter(must=[edge.HasVectorCondition(name)])))
                for name in schema.dense
            )

    def begin_journal(self, limit_bytes: int) -> Journal:
        """Starts to remember writes. The lock must be held."""
        self.journal = Journal(limit_bytes)
        return self.journal

    def end_journal(self) -> None:
        """Forgets the journal."""
        self.journal = None

    def swap(self, shard: edge.EdgeShard, generation: Path, definition: Definition) -> edge.EdgeShard:
        """Serves from another shard from now on; the former one. The lock must be held."""
        former = self.shard
        self._shard, self.generation, self.definition = shard, generation, definition
        self.deleted_since_build = 0
        self.journal = None
        return former

    def flush_now(self) -> None:
        """Puts everything applied so far on disk. The lock must be held."""
        with Guard("flush to disk"):
            self.shard.flush()
        self._unflushed_bytes = 0

    async def _settle(self, *, wait: bool) -> None:
        if self._unflushed_bytes > _UNFLUSHED_BYTES:
            self._start_checkpoint()
        elif self._checkpoint_timer is None:
            interval = self.definition.configuration.flush_interval
            loop = asyncio.get_running_loop()
            self._checkpoint_timer = loop.call_later(interval, self._start_checkpoint)
        if wait:
            await self._sync.done()
        else:
            self._sync.soon()

    def _start_checkpoint(self) -> None:
        self._stop_timer()
        if self._checkpoint is None or self._checkpoint.done():
            self._checkpoint = asyncio.create_task(self._flush_in_turn(), name=f"flush {self.name}")

    async def _flush_in_turn(self) -> None:
        """Keeps the engine's log short. Nobody waits for it: acknowledgements rest on the log itself."""
        async with self.lock:
            if self._shard is not None:
                with contextlib.suppress(Fault):  # it is in our log; the engine's still has everything
                    self.flush_now()

    def _stop_timer(self) -> None:
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None

    async def close(self) -> None:
        """Flushes and closes. Calls that come later are told that the collection is not there."""
        async with self.lock:
            self._stop_timer()
            self._sync.stop()
            shard, self._shard = self._shard, None
            if shard is None:
                return
            try:
                with Guard("flush to disk"):
                    shard.flush()
            finally:
                with Guard("close a collection"):
                    shard.close()
