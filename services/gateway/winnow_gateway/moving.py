"""What writes heed while a collection is embedded anew: they are noted, they wait for the moment of the switch, and
deletions reach both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from winnow_gateway.documents import DocumentView
from winnow_gateway.filters import Filter
from winnow_gateway.placements import Placement
from winnow_gateway.ports import Index
from winnow_rpc.faults import Aborted, NotFound
from winnow_rpc.telemetry import get_logger

log = get_logger("winnow.gateway")

_POLL_SECONDS = 0.05
_IDS = 1000
_IDS_ALONE = DocumentView(text=False, metadata=False)


async def settled(index: Index, name: str, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> Placement:
    """Where a collection is, once no switch is under way.

    A switch that takes longer than `seconds` is taken for one whose gateway has died, and is undone: it lets go of the
    writes, and whoever was at it begins the last step again.
    """
    began = clock()
    while (placement := await index.placements.placement(name)).held:
        if clock() - began > seconds:
            log.warning("writes were held for too long: they go on", collection=name, seconds=seconds)
            with suppress(Aborted):
                await index.placements.release(name)
        else:
            await asyncio.sleep(_POLL_SECONDS)
    return placement


async def noted(index: Index, name: str, stored: str, document_ids: Sequence[str], *, seconds: float) -> Placement:
    """The same after a write, once whoever fills another collection from the one that was written to will hear of it.

    Looks again after each entry: a write that was noted, and found the same placement and no hold after that, is
    carried over before any switch. Where the answer is another collection, the write has to be made there.
    """
    journal: str | None = None
    while True:
        placement = await settled(index, name, seconds=seconds)
        if placement.live != stored or placement.journal in (None, journal) or not document_ids:
            return placement
        journal = placement.journal
        # One that is gone was of a run that is over; whoever begins after that looks at everything.
        with suppress(NotFound):
            await index.journals.add(journal, document_ids)


async def delete_documents(index: Index, name: str, document_ids: Sequence[str]) -> int:
    """Deletes by id from all that the name means; returns how many were there.

    In the order in which they are filled from each other, and what has come into being meanwhile too: whoever copies a
    document from one to the next looks afterwards whether it is still where it came from.
    """
    deleted, done = 0, set[str]()
    while waiting := [each for each in await _oldest_first(index, name) if each not in done]:
        stored = waiting[0]
        try:
            deleted = max(deleted, await index.delete_documents(stored, document_ids))
        except NotFound:
            placement = await index.placements.placement(name)
            if stored == placement.live:
                raise
        done.add(stored)
    return deleted


async def delete_matching(index: Index, name: str, filter_: Filter) -> int:
    """Deletes what satisfies the filter from all that the name means; returns how many documents did."""
    placement = await index.placements.placement(name)
    if placement.oldest_first == (placement.live,):
        deleted = await index.delete_matching(placement.live, filter_)
        after = (await index.placements.placement(name)).oldest_first
        if after == placement.oldest_first:
            return deleted
        for stored in after:
            if stored != placement.live:
                await index.delete_matching(stored, filter_)
    else:
        deleted = 0
    # By id: the same document may be another version elsewhere, which the filter does not fit.
    while True:
        live = (await index.placements.placement(name)).live
        page = await index.documents(live, filter_=filter_, limit=_IDS, offset=None, view=_IDS_ALONE)
        if not page.documents:
            return deleted
        deleted += await delete_documents(index, name, [document.id for document in page.documents])


async def _oldest_first(index: Index, name: str) -> Sequence[str]:
    return (await index.placements.placement(name)).oldest_first
