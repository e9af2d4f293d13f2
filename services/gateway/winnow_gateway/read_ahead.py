"""How far ingest streams are read ahead of the work: in entries and bytes of each, and in bytes of all together."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class BytesInHand:
    """What all streams of a gateway have read and not dealt with yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0
        """Bytes."""
        self.paused: set[asyncio.Event] = set()
        """Of streams that wait for others to let go of something."""

    @property
    def full(self) -> bool:
        """Whether nobody should read on who has something to do."""
        return self.held >= self._limit

    def let_go(self, size: int) -> None:
        """Bytes were dealt with."""
        self.held -= size
        for each in self.paused:
            each.set()


class ReadAhead(Generic[T]):
    """Entries of one stream, in order: read, waiting to be taken, and at last dealt with."""

    def __init__(self, *, entries: int, size: int, in_hand: BytesInHand) -> None:
        """`entries` and `size` (bytes): how much may wait before reading pauses."""
        self._most_entries = entries
        self._most_bytes = size
        self._in_hand = in_hand
        self._waiting: asyncio.Queue[tuple[T, int]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._held = 0
        self._change = asyncio.Event()

    def add(self, entry: T, size: int) -> None:
        """Puts an entry that was read at the end."""
        self._waiting.put_nowait((entry, size))
        self._waiting_bytes += size
        self._held += size
        self._in_hand.held += size

    async def room(self) -> None:
        """Waits until more should be read.

        A stream of which nothing waits reads on whatever the others hold: so none depends on another's caller.
        """
        self._in_hand.paused.add(self._change)
        try:
            while not self.empty and (
                self._waiting.qsize() >= self._most_entries
                or self._waiting_bytes >= self._most_bytes
                or self._in_hand.full
            ):
                self._change.clear()
                await self._change.wait()
        finally:
            self._in_hand.paused.discard(self._change)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._waiting.empty()

    async def take(self) -> T:
        """The next entry, once there is one."""
        entry, size = await self._waiting.get()
        self._waiting_bytes -= size
        self._change.set()
        return entry

    def dealt_with(self, size: int) -> None:
        """Entries of so many bytes that were taken are needed no more."""
        self._held -= size
        self._in_hand.let_go(size)

    def close(self) -> None:
        """Lets go of everything."""
        self.dealt_with(self._held)
