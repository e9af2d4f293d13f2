"""Re-embedding: every document of a collection gets a vector of another model, while searches and writes go on.

A second collection of the index is filled from the first until hardly anything differs, writes are held for the moment
that the rest takes, and the second takes the place of the first. What is already there is skipped, so a run that was
cut off is gone on with by the next one. `reembedding_copy` fills, `placements` says how all gateways know of it,
`moving` what they heed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from winnow_gateway.catalog import Catalog
from winnow_gateway.collections import Collection, CollectionSpec, EmbedderModel, IndexState
from winnow_gateway.patience import persist
from winnow_gateway.ports import Embedder, Index
from winnow_gateway.reembedding_copy import Copy, CopyLimits, TakenOver, check_live
from winnow_rpc.faults import Aborted, FailedPrecondition, Fault, NotFound
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.gateway")

T = TypeVar("T")

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
class ReembedLimits(CopyLimits):
    """Bounds of a run."""

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
        self._embedder = embedder
        self._limits = limits
        self._switched = switched
        self._total = collection.document_count
        self._copy: Copy | None = None

    def progress(self, phase: ReembedPhase, *, complete: bool = False) -> ReembedProgress:
        """How far it is."""
        embedded = self._copy.embedded if self._copy else 0
        done = self._total if phase is ReembedPhase.SWITCHED else min(embedded, self._total)
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
        copy = self._copy = await self._begin(target)
        log.info(
            "re-embedding begins",
            collection=self._name,
            documents=self._total,
            former=self._source.spec.embedder.id,
            model=self._model.id,
        )
        yield self.progress(ReembedPhase.EMBEDDING)
        passing = copy.everything()
        previous: int | None = None
        while True:
            carried = 0
            async for count in passing:
                carried += count
                yield self.progress(ReembedPhase.EMBEDDING)
            passing = copy.written()
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
            if await self._switch(copy):
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
        kept: set[str | None] = {placement.live}
        if keep_former and placement.former:
            kept.add(placement.former)
        if keep_next and placement.next:
            kept |= {placement.next, placement.journal}
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
        there = await self._ask(lambda: self._index.stored_names(self._name))
        # After the names: what another gateway has made the live one since then is none of those that may go.
        placement = await self._ask(lambda: placements.placement(self._name))
        source = self._source
        check_live(placement, source)
        for stored in filter(None, (placement.next, placement.former)):
            found = (await self._ask(lambda stored=stored: self._index.collection(stored))).spec  # type: ignore[misc]
            if found.embedder.fingerprint == self._model.fingerprint:
                return found
        spec = replace(
            source.spec,
            embedder=self._model,
            metadata_fields=(*source.spec.metadata_fields, *source.unindexed),
            revision=self._model.fingerprint[:_FINGERPRINT_SHOWN],
        )
        # One begun for yet another model; and one that nothing points to, of which nobody knows what it lacks.
        for stored in there:
            if stored in (placement.next, spec.stored_as):
                await self._index.delete_collection(stored)
        await self._index.create_collection(spec, created=source.created)
        return spec

    async def _begin(self, target: CollectionSpec) -> Copy:
        """From here on every write that is acknowledged was there before, or goes into the journal."""
        journal = await self._ask(lambda: self._index.journals.make(self._name))
        await self._index.placements.begin(self._name, target.stored_as, journal)
        copy = Copy(
            source=self._source,
            target=target.stored_as,
            journal=journal,
            model=self._model,
            index=self._index,
            embedder=self._embedder,
            limits=self._limits,
        )
        # Another gateway may have switched since the target was chosen: to the target, perhaps.
        await copy.placement()
        return copy

    async def _switch(self, copy: Copy) -> bool:
        """Holds writes, carries the last ones over, and switches; False if the writes had to wait for too long."""
        placements = self._index.placements
        await placements.hold(self._name)
        try:
            async for _ in copy.written():
                pass
            await placements.switch(await copy.placement())
        except BaseException as error:
            with suppress(Fault):
                await placements.release(self._name)
            if isinstance(error, Aborted) and not isinstance(error, TakenOver):
                return False
            raise
        return True

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await persist(operation, seconds=self._limits.retry_seconds, work="re-embedding")
