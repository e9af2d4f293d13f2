"""The copy that re-embedding makes: documents go from the collection that answers to the one that is filled, with
vectors of its model.

All of them at first, then those that the journal says were written meanwhile. What the target has with the same content
hash already is skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from winnow_gateway.collections import Collection, EmbedderModel
from winnow_gateway.documents import StoredDocument
from winnow_gateway.embedding import PassageEmbedding
from winnow_gateway.patience import persist
from winnow_gateway.placements import Placement
from winnow_gateway.ports import Embedder, Index
from winnow_rpc.faults import Aborted, FailedPrecondition

T = TypeVar("T")

_ENTRIES = 64


class TakenOver(Aborted):
    """Another gateway re-embeds the collection, or has done so."""


def check_live(placement: Placement, source: Collection) -> None:
    """Raises TakenOver unless a collection is still the one that answers under its name."""
    if placement.live != source.spec.stored_as:
        raise TakenOver(
            f"collection {placement.name!r} was switched to other vectors by another gateway meanwhile",
            reason="SWITCHED_ELSEWHERE",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """Bounds of the work."""

    group_size: int = 64
    """Documents embedded and written together, at most."""
    group_bytes: int = 4 * 1024 * 1024
    """Text of one group, at most."""
    groups_in_flight: int = 4
    """Groups that are being embedded."""
    retry_seconds: float = 60.0
    """How long a backend that is unavailable or overloaded is waited for."""


class Copy:
    """Carries the documents of one collection to the collection of the index that is to take its place."""

    def __init__(
        self,
        *,
        source: Collection,
        target: str,
        journal: str,
        model: EmbedderModel,
        index: Index,
        embedder: Embedder,
        limits: CopyLimits,
    ) -> None:
        """`target` and `journal`: their stored names, by which the placement knows them already."""
        self._source = source
        self._target = target
        self._journal = journal
        self._model = model
        self._index = index
        self._embedding = PassageEmbedding(
            embedder=embedder,
            fingerprint=model.fingerprint,
            retry_seconds=limits.retry_seconds,
            work="re-embedding",
        )
        self._limits = limits
        self.embedded = 0
        """Documents that `everything` has dealt with."""

    async def everything(self) -> AsyncIterator[int]:
        """Carries over what differs; after each page, how many documents that was."""
        offset: str | None = None
        while True:
            page = await self._ask(
                partial(self._index.hashes, self._source.spec.stored_as, limit=self._at_once, offset=offset)
            )
            carried = await self._carry(page.hashes)
            self.embedded += len(page.hashes)
            yield carried
            offset = page.next_offset
            if offset is None:
                return

    async def written(self) -> AsyncIterator[int]:
        """Carries over what differs of what the journal has, and strikes it out there; after each page, how many
        documents that was.

        An entry follows its write, so whoever reads the document after the entry sees that write or a later one.
        """
        await self.placement()
        journals, offset = self._index.journals, None
        while True:
            page = await self._ask(partial(journals.entries, self._journal, limit=_ENTRIES, offset=offset))
            ids = list(dict.fromkeys(id_ for entry in page.entries.values() for id_ in entry))
            carried = 0
            for at in range(0, len(ids), self._at_once):
                part = ids[at : at + self._at_once]
                hashes = await self._ask(partial(self._index.content_hashes, self._source.spec.stored_as, part))
                carried += await self._carry(hashes)
            if page.entries:
                await self._ask(partial(journals.remove, self._journal, list(page.entries)))
            yield carried
            offset = page.next_offset
            if offset is None:
                return

    async def placement(self) -> Placement:
        """Where the collection is now. Raises TakenOver unless that is where this run has left it."""
        name = self._source.spec.name
        placement = await self._ask(lambda: self._index.placements.placement(name))
        check_live(placement, self._source)
        if placement.journal != self._journal:
            raise TakenOver(f"another gateway has begun to re-embed collection {name!r}", reason="TAKEN_OVER")
        return placement

    @property
    def _at_once(self) -> int:
        return self._limits.group_size * self._limits.groups_in_flight

    async def _carry(self, hashes: Mapping[str, str]) -> int:
        if not hashes:
            return 0
        there = await self._ask(lambda: self._index.content_hashes(self._target, list(hashes)))
        lacking = [id_ for id_, hash_ in hashes.items() if there.get(id_) != hash_]
        size = self._limits.group_size
        groups = [lacking[at : at + size] for at in range(0, len(lacking), size)]
        tasks = [asyncio.create_task(self._carry_group(group), name="re-embedding: group") for group in groups]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return len(lacking)

    async def _carry_group(self, ids: Sequence[str]) -> None:
        source, target = self._source.spec.stored_as, self._target
        found = await self._ask(lambda: self._index.stored_documents(source, ids))
        for part in _fitting(found, self._limits.group_bytes):
            embedded = await self._embedding.embed([each.document for each in part])
            for id_, refusal in embedded.refusals.items():
                raise FailedPrecondition(
                    f"the model {self._model.id} refuses the document {id_!r}: {refusal.message}",
                    reason="DOCUMENT_REFUSED",
                    metadata={"collection": self._source.spec.name, "id": id_},
                )
            points = [
                replace(point, content_hash=each.content_hash, updated=each.updated)
                for point, each in zip(embedded.points, part, strict=True)
            ]
            await self.placement()
            await self._ask(partial(self._index.upsert, target, points))
            # What was deleted while it was on its way was not there yet to be deleted from here.
            copied = [each.document.id for each in part]
            left = await self._ask(partial(self._index.content_hashes, source, copied))
            if gone := [id_ for id_ in copied if id_ not in left]:
                await self._ask(partial(self._index.delete_documents, target, gone))

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await persist(operation, seconds=self._limits.retry_seconds, work="re-embedding")


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
