"""Every document of a small collection, for the cross-encoder to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from winnow_gateway.documents import Document, DocumentView
from winnow_gateway.outcomes import Cause
from winnow_gateway.planning import EXHAUSTIVE_PAGE, MAX_EXHAUSTIVE
from winnow_gateway.ports import Candidate, Index
from winnow_gateway.queries import SearchQuery
from winnow_rpc.faults import DeadlineExceeded, Fault, NotFound


@dataclass(frozen=True, slots=True)
class Fetched:
    """The candidates with their texts."""

    candidates: Sequence[Candidate]
    """In retrieval order, then those that retrieval did not name, by id; one whose text did not come has
    `head_only`."""
    count: int
    """Documents whose texts came."""
    cause: Cause | None = None
    """Why some did not; None: all did."""
    fault: Fault | None = None


async def fetch_all(
    index: Index,
    stored: str,
    query: SearchQuery,
    retrieved: Sequence[Candidate],
    *,
    seconds: float,
    clock: Callable[[], float],
) -> Fetched:
    """Pages through the documents of a collection, by its stored name, that satisfy the filter, within so many seconds,
    and joins them with the retrieved."""
    documents: dict[str, Document] = {}
    cause: Cause | None = None
    fault: Fault | None = None
    view = DocumentView(text=True, metadata=query.view.metadata)
    until = clock() + seconds
    offset: str | None = None
    try:
        while len(documents) < MAX_EXHAUSTIVE:
            async with asyncio.timeout(max(0.0, until - clock())):
                page = await index.documents(
                    stored, filter_=query.filter, limit=EXHAUSTIVE_PAGE, offset=offset, view=view
                )
            documents.update({document.id: document for document in page.documents})
            offset = page.next_offset
            if offset is None:
                break
    except NotFound:
        raise
    except TimeoutError:
        cause, fault = Cause.NO_TIME, DeadlineExceeded("the time was up while documents were fetched")
    except Fault as failure:
        cause, fault = Cause.of(failure), failure
    named = {candidate.document.id for candidate in retrieved}
    candidates = [
        replace(candidate, document=documents[candidate.document.id], head_only=False)
        if candidate.document.id in documents
        else replace(candidate, head_only=True)
        for candidate in retrieved
    ]
    if query.min_retrieval_score is None:
        # BM25 names only what shares a word with the query: to it the others are worth nothing.
        least = min(0.0, retrieved[-1].score) if retrieved else 0.0
        others = sorted(id_ for id_ in documents if id_ not in named)
        candidates += [Candidate(documents[id_], least) for id_ in others]
    return Fetched(candidates, len(documents), cause, fault)
