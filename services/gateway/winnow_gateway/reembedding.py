"""Re-embedding: every document of a collection gets a vector of another model, while searches and writes go on.

A second collection of the index is filled from the first until hardly anything differs, writes are held for the moment
that the rest takes, and the second takes the place of the first. What is already there is skipped, so a run that was
cut off is gone on with by the next one. `placements` says how all gateways know of it, `moving` what they heed
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypeVar

from winnow_gateway.catalog import Catalog
from winnow_gateway.collections import Collection, CollectionSpec, EmbedderModel, IndexState
from winnow_gateway.documents import StoredDocument
from winnow_gateway.embedding import PassageEmbedding
from winnow_gateway.patience import persist
from winnow_gateway.ports import Embedder, Index
from winnow_rpc.faults import Aborted, FailedPrecondition, Fault, NotFound
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.gateway")

T = TypeVar("T")

# What was written since a pass began is looked at again by the next one, and so much more, for clocks of other
# gateways.
_CLOCKS_DIFFER = timedelta(minutes=5)
_FINGERPRINT_SHOWN = 12


class ReembedPhase(Enum):
    """What re-embedding is at."""

    EMBEDDING = "embedding"
    INDEXING = "indexing"
    SWITCHING = "switching"
    SWITCHED = "switched"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReembedProgress:
    """How far it is."""

    phase: ReembedPhase
    embedded_count: int
    """Documents that have a vector of the new model."""
    document_count: int
    fingerprint: str
    former_fingerprint: str
    complete: bool = False


class ReembedOutcome(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """By its caller, or because the gateway stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReembedLimits:
    """Bounds of a run."""

    group_size: int = 64
    """Documents embedded and written together, at most."""
    group_bytes: int = 4 * 1024 * 1024
    """Text of one group, at most."""
    groups_in_flight: int = 4
    """Groups that are being embedded."""
    retry_seconds: float = 60.0
    """How long a backend that is unavailable or overloaded is waited for."""
    grace_seconds: float = 30.0
    """How long the former vectors stay after the switch, for searches that have begun with them."""
    poll_seconds: float = 0.5
    """How often the index is asked how far its graph is, and the caller told that the grace goes on."""


class Reembedder:
    """Runs re-embeddings, one of a collection at a time."""

    def __init__(
        self, *, catalog: Catalog, index: Index, embedder: Embedder, limits: ReembedLimits | None = None
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._embedder = embedder
        self._limits = limits or ReembedLimits()
        self._running: dict[str, ReembedProgress | None] = {}
        self.on_end: Callable[[ReembedOutcome], None] = lambda outcome: None
        """Called when a run has ended that knew what was to be done."""

    @property
    def progress(self) -> Sequence[ReembedProgress]:
        """How far the runs are that are under way."""
        return [each for each in self._running.values() if each]

    async def run(self, name: str, *, keep_former: bool, discard: bool) -> AsyncGenerator[ReembedProgress, None]:
        """Binds a collection to the model that is served now; the last progress is complete.

        Raises NotFound; FailedPrecondition, reason REEMBEDDING, if it is under way already; Aborted where another
        gateway was at it at the same time; and what ended it otherwise. All may be followed by another run.
        """
        if name in self._running:
            raise FailedPrecondition(
                f"collection {name!r} is being re-embedded already",
                reason="REEMBEDDING",
                metadata={"collection": name},
            )
        self._running[name] = None
        outcome = ReembedOutcome.CANCELLED
        try:
            collection = await self._catalog.recent(name, fresh=True)
            model = collection.spec.embedder if discard else await self._embedder.model()
            run = _Run(
                collection=collection,
                model=model,
                index=self._index,
                embedder=self._embedder,
                limits=self._limits,
                switched=lambda: self._catalog.forget(name),
            )
            if not discard:
                self._running[name] = run.progress(ReembedPhase.EMBEDDING)
            async with aclosing(run.steps(keep_former=keep_former, discard=discard)) as steps:
                async for progress in steps:
                    if not discard:
                        self._running[name] = progress
                    yield progress
            outcome = ReembedOutcome.COMPLETE
        except Exception:
            outcome = ReembedOutcome.FAILED
            raise
        finally:
            if self._running.pop(name):
                self.on_end(outcome)


class _Run:
    def __init__(
        self,
        *,
        collection: Collection,
        model: EmbedderModel,
        index: Index,
        embedder: Embedder,
        limits: ReembedLimits,
        switched: Callable[[], None],
    ) -> None:
        self._source = collection
        self._name = collection.spec.name
        self._model = model
        self._index = index
        self._embedding = PassageEmbedding(
            embedder=embedder,
            fingerprint=model.fingerprint,
            retry_seconds=limits.retry_seconds,
            work="re-embedding",
        )
        self._limits = limits
        self._switched = switched
        self._total = collection.document_count
        self._embedded = 0

    def progress(self, phase: ReembedPhase, *, complete: bool = False) -> ReembedProgress:
        """How far it is."""
        done = self._total if phase is ReembedPhase.SWITCHED else min(self._embedded, self._total)
        return ReembedProgress(
            phase=phase,
            embedded_count=done,
            document_count=self._total,
            fingerprint=self._model.fingerprint,
            former_fingerprint=self._source.spec.embedder.fingerprint,
            complete=complete,
        )

    async def steps(self, *, keep_former: bool, discard: bool) -> AsyncGenerator[ReembedProgress, None]:
        """All of it; the last progress is complete."""
        if self._model.fingerprint != self._source.spec.embedder.fingerprint:
            async for progress in self._fill_and_switch():
                yield progress
        if not (keep_former or discard):
            async for progress in self._grace():
                yield progress
        await self._clear_away(keep_former=keep_former, keep_next=not discard)
        yield self.progress(ReembedPhase.SWITCHED, complete=True)

    async def _fill_and_switch(self) -> AsyncIterator[ReembedProgress]:
        """Until the collection answers with the new vectors."""
        target = await self._target()
        log.info(
            "re-embedding begins",
            collection=self._name,
            documents=self._total,
            former=self._source.spec.embedder.id,
            model=self._model.id,
        )
        yield self.progress(ReembedPhase.EMBEDDING)
        since: datetime | None = None
        previous: int | None = None
        while True:
            began, carried = datetime.now(UTC), 0
            async for count in self._pass(target, since):
                carried += count
                yield self.progress(ReembedPhase.EMBEDDING)
            since = began - _CLOCKS_DIFFER
            shrinking = previous is None or carried < previous / 2
            previous = carried
            if carried > self._limits.group_size and shrinking:
                # The last step is to be short. Where more is written all the time than that, it will not get shorter.
                continue
            if (await self._ask(lambda: self._index.collection(target.stored_as))).index_state is IndexState.BUILDING:
                # Searches would compare with every vector until it is there.
                yield self.progress(ReembedPhase.INDEXING)
                await asyncio.sleep(self._limits.poll_seconds)
                continue
            yield self.progress(ReembedPhase.SWITCHING)
            if await self._switch(target, since):
                break
        log.info("collection answers with new vectors", collection=self._name, model=self._model.id)
        self._switched()

    async def _grace(self) -> AsyncIterator[ReembedProgress]:
        """While searches may still be about that have begun with the former vectors."""
        placement = await self._ask(lambda: self._index.placements.placement(self._name))
        if placement.former is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.grace_seconds
        while loop.time() < until:
            yield self.progress(ReembedPhase.SWITCHED)
            await asyncio.sleep(min(self._limits.poll_seconds, max(0.0, until - loop.time())))

    async def _clear_away(self, *, keep_former: bool, keep_next: bool) -> None:
        """Removes what the index holds of the collection beside what answers and what is to be kept."""
        placement = await self._ask(lambda: self._index.placements.placement(self._name))
        kept = {placement.live}
        if keep_former and placement.former:
            kept.add(placement.former)
        if keep_next and placement.next:
            kept.add(placement.next)
        for stored in await self._ask(lambda: self._index.stored_names(self._name)):
            if stored not in kept:
                with suppress(NotFound):
                    await self._index.delete_collection(stored)
                log.info("vectors removed", collection=self._name, stored_as=stored)

    async def _target(self) -> CollectionSpec:
        """The collection that is to be filled: one that a former run has begun, one that was kept, or a new one."""
        placements = self._index.placements
        if (await self._ask(lambda: placements.placement(self._name))).held:
            with suppress(Aborted):
                await placements.release(self._name)
        placement = await self._ask(lambda: placements.placement(self._name))
        for stored in filter(None, (placement.next, placement.former)):
            found = (await self._ask(lambda stored=stored: self._index.collection(stored))).spec  # type: ignore[misc]
            if found.embedder.fingerprint == self._model.fingerprint:
                await placements.begin(self._name, stored)
                return found
        source = self._source
        spec = replace(
            source.spec,
            embedder=self._model,
            metadata_fields=(*source.spec.metadata_fields, *source.unindexed),
            revision=self._model.fingerprint[:_FINGERPRINT_SHOWN],
        )
        there = await self._ask(lambda: self._index.stored_names(self._name))
        # One begun for yet another model; and one that nothing points to, of which nobody knows what it lacks.
        for stored in there:
            if stored in (placement.next, spec.stored_as):
                await self._index.delete_collection(stored)
        await self._index.create_collection(spec, created=source.created)
        await placements.begin(self._name, spec.stored_as)
        return spec

    async def _switch(self, target: CollectionSpec, since: datetime) -> bool:
        """Holds writes, carries the last ones over, and switches; False if the writes had to wait for too long."""
        placements = self._index.placements
        await placements.hold(self._name)
        try:
            async for _ in self._pass(target, since):
                pass
            await placements.switch(await placements.placement(self._name))
        except BaseException as error:
            with suppress(Fault):
                await placements.release(self._name)
            if isinstance(error, Aborted) and error.reason != _ELSEWHERE:
                return False
            raise
        return True

    async def _pass(self, target: CollectionSpec, since: datetime | None) -> AsyncIterator[int]:
        """Carries over what differs of what was written since a time; after each page, how many documents that was."""
        offset: str | None = None
        while True:
            page = await self._ask(
                lambda offset=offset: self._index.hashes(  # type: ignore[misc]
                    self._source.spec.stored_as,
                    since=since,
                    limit=self._limits.group_size * self._limits.groups_in_flight,
                    offset=offset,
                )
            )
            carried = await self._carry(page.hashes, target)
            if since is None:
                self._embedded += len(page.hashes)
            yield carried
            offset = page.next_offset
            if offset is None:
                return

    async def _carry(self, hashes: Mapping[str, str], target: CollectionSpec) -> int:
        if not hashes:
            return 0
        there = await self._ask(lambda: self._index.content_hashes(target.stored_as, list(hashes)))
        lacking = [id_ for id_, hash_ in hashes.items() if there.get(id_) != hash_]
        size = self._limits.group_size
        groups = [lacking[at : at + size] for at in range(0, len(lacking), size)]
        tasks = [asyncio.create_task(self._carry_group(group, target), name="re-embedding: group") for group in groups]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return len(lacking)

    async def _carry_group(self, ids: Sequence[str], target: CollectionSpec) -> None:
        source = self._source.spec.stored_as
        found = await self._ask(lambda: self._index.stored_documents(source, ids))
        for part in _fitting(found, self._limits.group_bytes):
            embedded = await self._embedding.embed([each.document for each in part])
            for id_, refusal in embedded.refusals.items():
                raise FailedPrecondition(
                    f"the model {self._model.id} refuses the document {id_!r}: {refusal.message}",
                    reason="DOCUMENT_REFUSED",
                    metadata={"collection": self._name, "id": id_},
                )
            points = [
                replace(point, content_hash=each.content_hash, updated=each.updated)
                for point, each in zip(embedded.points, part, strict=True)
            ]
            if (await self._ask(lambda: self._index.placements.placement(self._name))).live != source:
                raise Aborted(
                    f"collection {self._name!r} was switched to other vectors by another gateway meanwhile",
                    reason=_ELSEWHERE,
                )
            await self._ask(lambda points=points: self._index.upsert(target.stored_as, points))  # type: ignore[misc]
            # What was deleted while it was on its way was not there yet to be deleted from here.
            copied = [each.document.id for each in part]
            left = await self._ask(lambda copied=copied: self._index.content_hashes(source, copied))  # type: ignore[misc]
            if gone := [id_ for id_ in copied if id_ not in left]:
                await self._ask(lambda gone=gone: self._index.delete_documents(target.stored_as, gone))  # type: ignore[misc]

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await persist(operation, seconds=self._limits.retry_seconds, work="re-embedding")


_ELSEWHERE = "SWITCHED_ELSEWHERE"


def _fitting(documents: Sequence[StoredDocument], limit: int) -> Iterator[Sequence[StoredDocument]]:
    """Runs of documents whose text is within the limit; a longer document is alone."""
    run: list[StoredDocument] = []
    size = 0
    for each in documents:
        own = 4 * len(each.document.text)
        if run and size + own > limit:
            yield run
            run, size = [], 0
        run.append(each)
        size += own
    if run:
        yield run
