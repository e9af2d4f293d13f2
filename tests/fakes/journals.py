"""Journals in memory of what is written while a collection is embedded anew."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from winnow_gateway.placements import split_stored, stored_name
from winnow_gateway.ports import JournalPage
from winnow_rpc.faults import NotFound


class FakeJournals:
    """Implements ports.Journals."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, list[str]]] = {}
        """The entries of each journal, by their ids."""

    async def make(self, name: str) -> str:
        journal = stored_name(name, f"journal-{uuid.uuid4().hex}")
        self.held[journal] = {}
        return journal

    async def add(self, journal: str, document_ids: Sequence[str]) -> None:
        await asyncio.sleep(0)
        self._find(journal)[str(uuid.uuid4())] = list(document_ids)

    async def entries(self, journal: str, *, limit: int, offset: str | None) -> JournalPage:
        await asyncio.sleep(0)
        entries = self._find(journal)
        fitting = [key for key in sorted(entries) if key >= (offset or "")]
        following = fitting[limit] if len(fitting) > limit else None
        return JournalPage({key: list(entries[key]) for key in fitting[:limit]}, following)

    async def remove(self, journal: str, entries: Sequence[str]) -> None:
        held = self._find(journal)
        for entry in entries:
            held.pop(entry, None)

    def _find(self, journal: str) -> dict[str, list[str]]:
        if journal not in self.held:
            raise NotFound(f"there is no collection {split_stored(journal)[0]!r}", reason="NO_COLLECTION")
        return self.held[journal]
