"""Carries documents through an ingest stream to the end, over as many connections as it takes. Knows no terminal."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from winnow_client.asynchronous import AsyncClient
from winnow_client.cli.reading.records import Item, Refusal
from winnow_client.documents import Acknowledgement, Document, IngestOutcome
from winnow_rpc.faults import Fault, ResourceExhausted, Unavailable

_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 5.0
# What may be otherwise in a moment.
_PASSING = (Unavailable, ResourceExhausted)


@dataclass
class Tally:
    """What has become of the documents so far. Documents are counted once, however often they were sent."""

    outcomes: Counter[IngestOutcome] = field(default_factory=Counter)
    """Documents per outcome; refusals of readers are among the refused."""
    truncated: int = 0
    """Indexed documents of which the model did not read all."""
    began: float = field(default_factory=time.monotonic)
    """When counting began, in seconds of the monotonic clock."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, outcome: IngestOutcome) -> None:
        """One more document is settled. Readers, in their thread, and the stream both count."""
        with self._lock:
            self.outcomes[outcome] += 1

    @property
    def count(self) -> int:
        """Documents that are settled."""
        return sum(self.outcomes.values())

    @property
    def seconds(self) -> float:
        """Seconds since counting began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Documents settled per second."""
        return self.count / max(self.seconds, 1e-9)


class Replay:
    """Items of a source, each kept until it is settled, so that a new stream can begin with those that are not.

    The streams are read in threads, and an old one may still be waiting for the source while a new one begins: what it
    gets then is kept as well, and the new one goes on with it.
    """

    def __init__(self, source: Iterator[Item]) -> None:
        self._source = source
        # Reading the source may take for ever; whoever settles must not wait for it.
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._pending: deque[Item] = deque()
        self._settled_count = 0
        self._failure: BaseException | None = None

    @property
    def settled_count(self) -> int:
        """Items that are dealt with."""
        return self._settled_count

    @property
    def pending_count(self) -> int:
        """Items that were handed out and are not dealt with."""
        return len(self._pending)

    def stream(self) -> Iterator[Item]:
        """The items that are not settled, then the rest of the source."""
        with self._lock:
            position = self._settled_count
        while (item := self._at(position)) is not None:
            yield item
            position += 1

    def settle(self) -> Item:
        """The oldest item is dealt with; returns it."""
        with self._lock:
            self._settled_count += 1
            return self._pending.popleft()

    def _at(self, position: int) -> Item | None:
        kept = self._kept(position)
        if kept is not None:
            return kept
        with self._reading:
            # Another stream may have read it while this one waited for its turn.
            kept = self._kept(position)
            if kept is None and (kept := self._read()) is not None:
                with self._lock:
                    self._pending.append(kept)
            return kept

    def _read(self) -> Item | None:
        # A generator that has failed says the next time that it is at its end, and whoever heard the failure may be a
        # stream that nobody reads any more.
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._source, None)
        except BaseException as error:
            self._failure = error
            raise

    def _kept(self, position: int) -> Item | None:
        with self._lock:
            offset = position - self._settled_count
            return self._pending[offset] if 0 <= offset < len(self._pending) else None


async def run_ingest(
    client: AsyncClient,
    collection: str,
    source: Iterator[Item],
    *,
    tally: Tally,
    retry_for: float,
    on_refusal: Callable[[Refusal], None],
    on_wait: Callable[[Fault, float], None],
) -> None:
    """Ingests all items, and counts them in `tally`.

    When the gateway is away, everything that is not acknowledged is sent again, for up to `retry_for` seconds without
    any progress; then the fault is raised. `on_wait` hears the fault and the seconds until the next attempt.
    """
    replay = Replay(source)
    give_up_at: float | None = None
    failures = 0
    while True:
        before = replay.settled_count
        try:
            await _one_stream(client, collection, replay, tally=tally, on_refusal=on_refusal)
            return
        except _PASSING as fault:
            now = time.monotonic()
            if give_up_at is None or replay.settled_count > before:
                give_up_at, failures = now + retry_for, 0
            # Half fixed, half random: so that many clients do not return at once.
            wait = min(_FIRST_WAIT_SECONDS * 2**failures, _LONGEST_WAIT_SECONDS) * (0.5 + random.random() / 2)  # noqa: S311
            wait = max(wait, fault.retry_after or 0.0)
            failures += 1
            if now + wait > give_up_at:
                raise
            on_wait(fault, wait)
        await asyncio.sleep(wait)


async def _one_stream(
    client: AsyncClient, collection: str, replay: Replay, *, tally: Tally, on_refusal: Callable[[Refusal], None]
) -> None:
    async with aclosing(client.ingest(collection, _documents(replay))) as acknowledgements:
        async for acknowledgement in acknowledgements:
            item = replay.settle()
            tally.add(acknowledgement.outcome)
            tally.truncated += acknowledgement.dropped_token_count > 0
            if acknowledgement.outcome is IngestOutcome.REFUSED:
                on_refusal(_refusal(item, acknowledgement))


def _documents(replay: Replay) -> Iterator[Document]:
    for item in replay.stream():
        yield item.document


def _refusal(item: Item, acknowledgement: Acknowledgement) -> Refusal:
    fault = acknowledgement.refusal
    if fault is None:
        return Refusal(item.place, "UNKNOWN", "refused without a reason", item.document.id)
    return Refusal(item.place, fault.reason, fault.message, item.document.id)
