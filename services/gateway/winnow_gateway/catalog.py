"""Collections and the model that each is bound to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from winnow_gateway.collections import (
    Collection,
    CollectionSpec,
    EmbedderModel,
    HnswConfig,
    LexicalConfig,
    MetadataField,
)
from winnow_gateway.placements import split_stored
from winnow_gateway.ports import Embedder, Index
from winnow_rpc.faults import AlreadyExists, FailedPrecondition, NotFound

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CollectionPage:
    """Some collections, and the name after which the next ones begin."""

    collections: Sequence[Collection]
    next_name: str | None


class Catalog:
    """Administers collections, and remembers for a moment what each is made from.

    A search needs to know which model filled its collection. Asking the index each time would cost a round trip, so the
    answer is kept for `cache_seconds`: for that long a collection that another gateway deletes and makes anew for
    another model may be judged by its former self; the embedder's own check of the fingerprint still holds.
    """

    def __init__(
        self,
        *,
        index: Index,
        embedder: Embedder,
        cache_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._known: dict[str, tuple[float, Collection]] = {}

    async def create(
        self,
        name: str,
        *,
        description: str,
        metadata_fields: Sequence[MetadataField],
        hnsw: HnswConfig,
        lexical: LexicalConfig | None,
    ) -> Collection:
        """Makes a collection bound to the model that the embedder serves now."""
        embedder = await self._embedder.model()
        spec = CollectionSpec(
            name=name,
            embedder=embedder,
            description=description,
            metadata_fields=metadata_fields,
            hnsw=hnsw,
            lexical=lexical,
        )
        self._known.pop(name, None)
        placement = await self._index.placements.placement(name)
        if placement.live != spec.stored_as:
            raise AlreadyExists(
                f"collection {name!r} is there already", reason="COLLECTION_EXISTS", metadata={"collection": name}
            )
        return await self._index.create_collection(spec)

    async def get(self, name: str) -> Collection:
        """One collection as it stands. NotFound if there is none."""
        placement = await self._index.placements.placement(name)
        try:
            return await self._index.collection(placement.live)
        except NotFound:
            # Another may have taken its place in between.
            latest = await self._index.placements.placement(name)
            if latest.live == placement.live:
                raise
            return await self._index.collection(latest.live)

    async def page(
        self, *, after: str, size: int, visible: Callable[[str], bool] = lambda _name: True
    ) -> CollectionPage:
        """Collections by name, from the first name after `after`; only those that are `visible`."""
        known = {split_stored(stored)[0] for stored in await self._index.collection_names()}
        names = sorted(name for name in known if name > after and visible(name))
        placements = await self._index.placements.placements(names)
        found: list[Collection] = []
        for position, name in enumerate(names):
            if len(found) == size:
                return CollectionPage(found, next_name=names[position - 1])
            try:
                found.append(await self._index.collection(placements[name].live))
            except NotFound:
                continue  # deleted meanwhile, or not one of ours: the index may serve others too
        return CollectionPage(found, next_name=None)

    async def delete(self, name: str) -> int:
        """Deletes a collection; returns how many documents were in it."""
        self._known.pop(name, None)
        collection = await self.get(name)
        live = collection.spec.stored_as
        # What answers comes last, so that a deletion that is cut off leaves the collection whole.
        for stored in sorted(await self._index.stored_names(name), key=lambda stored: stored == live):
            await self._index.delete_collection(stored)
        return collection.document_count

    async def spec(self, name: str) -> CollectionSpec:
        """What a collection is made from, at most `cache_seconds` old. NotFound if there is none."""
        return (await self.recent(name)).spec

    async def recent(self, name: str, *, fresh: bool = False) -> Collection:
        """A collection as it was at most `cache_seconds` ago; `fresh`: as it is now. NotFound if there is none."""
        known = self._known.get(name)
        if known and not fresh and self._clock() - known[0] < self._cache_seconds:
            return known[1]
        collection = await self.get(name)
        self._known[name] = (self._clock(), collection)
        return collection

    async def to_fill(self, name: str, *, fresh: bool = False) -> Collection:
        """The same for whoever is going to write much: what the collection lacks, since its maker was killed, is made
        before there are documents."""
        collection = await self.recent(name, fresh=fresh)
        if collection.unindexed:
            collection = await self._index.complete_collection(collection.spec.stored_as)
            self._known[name] = (self._clock(), collection)
        return collection

    async def located(self, name: str, ask: Callable[[str], Awaitable[T]]) -> T:
        """What `ask` makes of the collection's name in the index; asked anew where that has just changed."""
        stored = (await self.spec(name)).stored_as
        try:
            return await ask(stored)
        except NotFound:
            latest = (await self.recent(name, fresh=True)).spec.stored_as
            if latest == stored:
                raise
            return await ask(latest)

    def forget(self, name: str) -> None:
        """Drops what is remembered of a collection, after the index said that it is not what we thought, or after
        writes."""
        self._known.pop(name, None)

    async def require_served(self, spec: CollectionSpec) -> EmbedderModel:
        """The embedder's model, once it is sure to be the one that fills the collection; else FailedPrecondition."""
        served = await self._embedder.model(fingerprint=spec.embedder.fingerprint)
        if served.fingerprint != spec.embedder.fingerprint:
            raise FailedPrecondition(
                f"collection {spec.name!r} was filled by the embedder {spec.embedder.id} "
                f"(fingerprint {spec.embedder.fingerprint[:12]}), but the embedder now serves {served.id} "
                f"(fingerprint {served.fingerprint[:12]}); their vectors cannot be compared",
                reason="EMBEDDER_MISMATCH",
                metadata={
                    "collection": spec.name,
                    "collection_fingerprint": spec.embedder.fingerprint,
                    "served_fingerprint": served.fingerprint,
                },
            )
        return served
