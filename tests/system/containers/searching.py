"""A collection with something to find in it, and a client that searches it all the while."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from winnow_client import Client, DegradationKind, Document, IngestOutcome, SearchMode, SearchResult
from winnow_rpc.faults import Fault

SUBJECTS = {
    "falcon": "The falcon dives on other birds in the air and strikes them with its talons.",
    "glacier": "A glacier is a river of ice that grinds its valley as it creeps downhill.",
    "sourdough": "Sourdough bread rises by the wild yeast that lives in a paste of flour and water.",
    "lighthouse": "The keeper of the lighthouse trimmed the lamp so that ships kept off the rocks.",
}
QUERY = "How does bread rise without bought yeast?"
RERANKED = 20


@contextmanager
def filled_collection(client: Client, count: int) -> Iterator[str]:
    """The name of a collection of so many documents, 4 of which are about something; it is deleted afterwards."""
    name = f"c-{uuid.uuid4().hex[:8]}"
    client.create_collection(name)
    documents = [Document(id=subject, text=text) for subject, text in SUBJECTS.items()]
    documents += [
        Document(id=f"ledger-{n}", text=f"Entry {n} of the ledger: {n * 7} crowns paid.")
        for n in range(count - len(SUBJECTS))
    ]
    outcomes = [acknowledged.outcome for acknowledged in client.ingest(name, documents)]
    assert outcomes == [IngestOutcome.INDEXED] * count
    yield name
    client.delete_collection(name)


def search(client: Client, collection: str) -> SearchResult:
    """A search through both stages."""
    return client.search(collection, QUERY, limit=3, depth=RERANKED, mode=SearchMode.TWO_STAGE)


def served(client: Client, collection: str) -> bool:
    """Whether a search is answered by now."""
    try:
        return len(search(client, collection).hits) == 3
    except Fault:
        return False


@dataclass
class Searches:
    """What became of searches so far."""

    found: list[SearchResult] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    def more(self, count: int = 3, *, seconds: float = 60.0) -> None:
        """Waits until so many more have ended."""
        seen, deadline = len(self.found), time.monotonic() + seconds
        while len(self.found) < seen + count and not self.failed and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.failed or len(self.found) >= seen + count, "searches hang"

    def degradations(self) -> set[DegradationKind]:
        """All kinds that were seen."""
        return {degradation.kind for result in self.found for degradation in result.degradations}


@contextmanager
def searching(client: Client, collection: str) -> Iterator[Searches]:
    """Searches one after the other, from a thread. In the end none has failed, and each has found the right one."""
    over, seen = threading.Event(), Searches()

    def run() -> None:
        while not over.is_set():
            try:
                seen.found.append(search(client, collection))
            except Exception as error:
                seen.failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
        seen.more()
    finally:
        over.set()
        thread.join()
    assert not seen.failed, f"{len(seen.failed)} of {len(seen.found) + len(seen.failed)} failed: {seen.failed[:3]!r}"
    assert all(result.hits[0].document.id == "sourdough" for result in seen.found)
