"""Ingest: a stream of documents in, one acknowledgement a document out, in order.

Reading, embedding and writing overlap. Documents are taken in groups of what has arrived, without a timer: while the
embedder works the next group gathers, and an idle one is given what there is. Groups are embedded side by side, but
written one after another, so the last of two documents with one id wins. Everything is bounded: documents and bytes
read ahead (but for the last message), groups in flight, acknowledgements not yet taken.

While a collection is embedded anew (`reembedding`), it is written to where it is; what was written just before it moved
is written once more, to where it is then, before it is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from winnow_gateway.collections import CollectionSpec
from winnow_gateway.documents import Document
from winnow_gateway.embedding import PassageEmbedding
from winnow_gateway.moving import noted
from winnow_gateway.patience import persist
from winnow_gateway.ports import Embedder, Index, Point
from winnow_gateway.read_ahead import BytesInHand, ReadAhead
from winnow_rpc.faults import FailedPrecondition, Fault, NotFound

T = TypeVar("T")


class Outcome(Enum):
    """What became of a document."""

    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Offered:
    """A document as it came, or what is wrong with it."""

    id: str
    document: Document | None
    refusal: Fault | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What became of the document at one position of the stream."""

    sequence: int
    id: str
    outcome: Outcome
    refusal: Fault | None = None
    dropped_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Bounds of one ingest stream."""

    group_size: int = 64
    """Documents embedded and written together, at most."""
    group_bytes: int = 4 * 1024 * 1024
    """Text of one group, at most, so that it fits into one message to the embedder and to the index; a longer document
    travels alone."""
    groups_in_flight: int = 4
    """Groups being embedded or waiting to be written."""
    read_ahead: int = 256
    """Documents read from the caller that no group has taken yet."""
    read_ahead_bytes: int = 16 * 1024 * 1024
    """Their text."""
    held_bytes: int = 256 * 1024 * 1024
    """Text that all streams together have in hand, past which each reads on only when nothing of it waits."""
    retry_seconds: float = 60.0
    """How long a backend that is unavailable or overloaded is waited for."""


@dataclass(slots=True)
class _Group:
    """Documents that go through the stages together."""

    entries: list[tuple[int, Offered]]
    # Ids that an earlier group is about to write: what the index holds for them now says nothing about then.
    overtaken: set[str] = field(default_factory=set)
    written: asyncio.Event = field(default_factory=asyncio.Event)


_END = None
"""Marks the end of the caller's stream in the queue of documents."""


class IngestRun:
    """One ingest stream into one collection. Iterate `acknowledgements` once, and close it."""

    def __init__(
        self,
        *,
        spec: CollectionSpec,
        embedder: Embedder,
        index: Index,
        limits: IngestLimits,
        in_hand: BytesInHand,
        timeout: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`in_hand` counts the text of all streams."""
        self._spec = spec
        self._embedder = embedder
        self._index = index
        self._limits = limits
        self._timeout = timeout
        self._offered: ReadAhead[tuple[int, Offered] | None] = ReadAhead(
            entries=limits.read_ahead, size=limits.read_ahead_bytes, in_hand=in_hand
        )
        self._outgoing: asyncio.Queue[asyncio.Task[Sequence[Acknowledgement]] | None] = asyncio.Queue(
            limits.groups_in_flight
        )
        self._in_flight: dict[str, _Group] = {}
        self._tasks: set[asyncio.Task[Sequence[Acknowledgement]]] = set()

    async def acknowledgements(
        self, documents: AsyncIterator[Sequence[Offered]]
    ) -> AsyncGenerator[Sequence[Acknowledgement], None]:
        """Acknowledgements in the order of the documents, each once its document is on disk.

        Raises what ended the stream: a fault of the caller's stream itself, or Unavailable once a backend stayed away
        for longer than the limit. What was not acknowledged by then may or may not have been written.
        """
        reading = asyncio.create_task(self._read(documents), name="ingest: read")
        grouping = asyncio.create_task(self._form_groups(), name="ingest: form groups")
        try:
            while (task := await self._outgoing.get()) is not None:
                yield await task
                self._tasks.discard(task)
            # The caller's stream may have ended in a fault; everything before it is acknowledged by now.
            await reading
        finally:
            running = [reading, grouping, *self._tasks]
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._offered.close()

    async def _read(self, documents: AsyncIterator[Sequence[Offered]]) -> None:
        sequence = 0
        try:
            async for batch in documents:
                for offered in batch:
                    entry = (sequence, offered)
                    self._offered.add(entry, _size(entry))
                    sequence += 1
                await self._offered.room()
        finally:
            self._offered.add(_END, 0)

    async def _form_groups(self) -> None:
        previous: _Group | None = None
        entry = await self._offered.take()
        while entry is not _END:
            entries, size = [entry], _size(entry)
            # What is there already joins; what has not arrived is not waited for.
            while not self._offered.empty and len(entries) < self._limits.group_size:
                entry = await self._offered.take()
                if entry is _END:
                    break
                size += _size(entry)
                if size > self._limits.group_bytes:
                    break
                entries.append(entry)
            group = self._register(entries)
            task = asyncio.create_task(self._process(group, previous), name="ingest: group")
            self._tasks.add(task)
            # Waits while too many groups are on their way: this is what slows the reading down.
            await self._outgoing.put(task)
            previous = group
            if entry is entries[-1]:
                entry = await self._offered.take()
        await self._outgoing.put(None)

    def _register(self, entries: list[tuple[int, Offered]]) -> _Group:
        group = _Group(entries)
        for _, offered in entries:
            if offered.document is None:
                continue
            if self._in_flight.get(offered.id, group) is not group:
                group.overtaken.add(offered.id)
            self._in_flight[offered.id] = group
        return group

    async def _process(self, group: _Group, previous: _Group | None) -> Sequence[Acknowledgement]:
        try:
            acknowledged = await self._embed_and_write(group, previous)
        finally:
            for _, offered in group.entries:
                if self._in_flight.get(offered.id) is group:
                    del self._in_flight[offered.id]
            self._offered.dealt_with(sum(_size(entry) for entry in group.entries))
        # Only now: a group that failed must not let the next one be written and acknowledged.
        group.written.set()
        return acknowledged

    async def _embed_and_write(self, group: _Group, previous: _Group | None) -> Sequence[Acknowledgement]:
        accepted = {offered.id: offered.document for _, offered in group.entries if offered.document}
        written: dict[str, int] = {}
        while True:
            spec = self._spec
            try:
                known = await self._known_hashes(spec, [id_ for id_ in accepted if id_ not in group.overtaken])
                # Within a group the last document of an id counts; the earlier ones are acknowledged with it.
                changed = {id_: doc for id_, doc in accepted.items() if known.get(id_) != doc.content_hash}
                embedded = await self._embedding(spec).embed(list(changed.values()))
                if previous:
                    await previous.written.wait()
                await self._write(spec, embedded.points)
            except (NotFound, FailedPrecondition):
                # It was re-embedded meanwhile, and what it was is gone, or its model.
                if not await self._moved(spec, ()):
                    raise
                continue
            # What was written once is not unchanged for being written again.
            written |= {id_: embedded.dropped.get(id_, 0) for id_ in changed}
            # With those that were there already: who wrote them may have died before they were noted.
            if not await self._moved(spec, list(accepted)):
                return [self._acknowledge(entry, written, embedded.refusals) for entry in group.entries]

    async def _write(self, spec: CollectionSpec, points: Sequence[Point]) -> None:
        if points:
            await self._persist(lambda: self._index.upsert(spec.stored_as, points))

    async def _moved(self, spec: CollectionSpec, written: Sequence[str]) -> bool:
        """Whether the collection is kept elsewhere by now: what was written to where it was may not have come along,
        and must be written again; else it is sure to come. Waits while that is just being decided."""
        seconds = self._limits.retry_seconds
        placement = await self._persist(lambda: noted(self._index, spec.name, spec.stored_as, written, seconds=seconds))
        if placement.live == spec.stored_as:
            return False
        if self._spec is spec:
            self._spec = (await self._persist(lambda: self._index.collection(placement.live))).spec
        return True

    async def _known_hashes(self, spec: CollectionSpec, ids: list[str]) -> Mapping[str, str]:
        if not ids:
            return {}
        return await self._persist(lambda: self._index.content_hashes(spec.stored_as, ids))

    def _embedding(self, spec: CollectionSpec) -> PassageEmbedding:
        return PassageEmbedding(
            embedder=self._embedder,
            fingerprint=spec.embedder.fingerprint,
            retry_seconds=self._limits.retry_seconds,
            work="ingest",
            timeout=self._timeout,
        )

    @staticmethod
    def _acknowledge(
        entry: tuple[int, Offered], written: Mapping[str, int], refusals: Mapping[str, Fault]
    ) -> Acknowledgement:
        sequence, offered = entry
        refusal = offered.refusal or (refusals.get(offered.id) if offered.document else None)
        if refusal:
            return Acknowledgement(sequence, offered.id, Outcome.REFUSED, refusal)
        if offered.id not in written:
            return Acknowledgement(sequence, offered.id, Outcome.UNCHANGED)
        return Acknowledgement(sequence, offered.id, Outcome.INDEXED, dropped_token_count=written[offered.id])

    async def _persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await persist(operation, seconds=self._limits.retry_seconds, work="ingest")


def _size(entry: tuple[int, Offered]) -> int:
    document = entry[1].document
    return 4 * len(document.text) if document else 0
