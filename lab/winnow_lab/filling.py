"""Fills a collection with a judged set, whole: figures and weights out of a part of it would be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.progress import Progress

from winnow_client import AsyncClient, Document, LexicalConfig
from winnow_rpc.faults import AlreadyExists, FailedPrecondition

_LONGEST = 128
"""Characters of a collection's name."""


def collection_of(set_: str) -> str:
    """The collection that a set is indexed in: the set's name, without what a collection's cannot hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", set_).lstrip("._-")[:_LONGEST] or "set"


async def fill(
    client: AsyncClient,
    collection: str,
    documents: Sequence[Document],
    progress: Progress,
    *,
    lexical: LexicalConfig | None = None,
) -> None:
    """Makes the collection hold these documents and no others; what is unchanged is not embedded again.

    Raises FailedPrecondition if a document is refused, or the collection holds others besides.
    """
    try:
        await client.create_collection(collection, lexical=lexical)
    except AlreadyExists:
        progress.console.print(f"collection {collection} is there already: only what changed is embedded")
    task = progress.add_task(f"ingest {collection}", total=len(documents))
    async for acknowledged in client.ingest(collection, documents):
        if acknowledged.refusal is not None:
            raise FailedPrecondition(
                f"the document {acknowledged.id} of {collection} was refused: {acknowledged.refusal.message}; mend or "
                f"remove it",
                reason="DOCUMENT_REFUSED",
            )
        progress.advance(task)
    stored = (await client.get_collection(collection)).document_count
    if stored != len(documents):
        raise FailedPrecondition(
            f"the collection {collection} holds {stored:,} documents and the set {len(documents):,}: it was filled "
            f"from another one. Delete it with `winnow collections delete {collection}` (or the index's folder, where "
            f"services are started for this) and give the command again",
            reason="COLLECTION_DIFFERS",
        )
