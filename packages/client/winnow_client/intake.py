"""Takes documents from the caller's iterable, as lazily as the stream to the gateway asks for them.

An ordinary iterable is read in a thread of its own: it may wait for a file, a pipe, or for another call of the same
client, and must not stop the event loop meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass

from winnow.search.v1 import documents_pb2
from winnow_client.config import IngestConfig
from winnow_client.conversions import document_to_proto
from winnow_client.documents import Document
from winnow_rpc.faults import Fault, InvalidArgument


@dataclass(frozen=True, slots=True)
class Entry:
    """A document on its way: its message, or why it cannot be sent."""

    id: str
    """Its id, as far as there is one."""
    content: documents_pb2.Document | Fault
    """The message, or the refusal."""
    size: int
    """Bytes of the message."""


def entry_of(document: Document, *, max_document_bytes: int) -> Entry:
    """Makes the message of a document; one that cannot be sent is refused, and refuses only itself."""
    if not isinstance(document, Document):
        raise TypeError(f"documents to ingest must be winnow_client.Document, not {type(document).__name__}")
    try:
        message = document_to_proto(document)
    except Fault as fault:
        return Entry(str(document.id), fault, 0)
    size = message.ByteSize()
    if size > max_document_bytes:
        description = f"the document has {size} bytes, more than the {max_document_bytes} that are sent at most"
        return Entry(document.id, InvalidArgument(description, field="text", reason="DOCUMENT_TOO_LARGE"), 0)
    return Entry(document.id, message, size)


class Intake:
    """A buffer of one message's worth between the caller's iterable and the stream. Lives on the running loop."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._room_in_thread = threading.Condition(self._lock)
        self._room_in_loop = asyncio.Event()
        self._wake = asyncio.Event()
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._finished = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None
        """What the caller's iterable raised."""

    def start(self, documents: Iterable[Document] | AsyncIterable[Document]) -> None:
        """Begins to read."""
        if isinstance(documents, AsyncIterable):
            self._task = asyncio.create_task(self._fill_from_loop(documents), name="winnow ingest")
        else:
            # A daemon: an iterable that never answers must not keep the process alive.
            threading.Thread(
                target=self._fill_from_thread, args=(documents,), name="winnow ingest", daemon=True
            ).start()

    async def take(self) -> list[Entry]:
        """The next message's worth of documents, at least one; none at the end.

        Waits a moment for a message that is not full. An id that comes again begins a new message, because within one
        message the gateway would refuse it, and in the next it replaces the document.
        """
        lingered = False
        while True:
            with self._lock:
                self._wake.clear()
                if self._closed or (self._finished and not self._entries):
                    return []
                if self._entries and (lingered or self._finished or self._full()):
                    return self._cut()
                some = bool(self._entries)
            try:
                async with asyncio.timeout(self._config.linger_seconds if some else None):
                    await self._wake.wait()
            except TimeoutError:
                lingered = True

    @property
    def exhausted(self) -> bool:
        """Whether the iterable ended and everything was taken."""
        with self._lock:
            return self._finished and not self._entries

    async def close(self) -> None:
        """Stops reading; what was read and not taken is dropped. A thread ends when its iterable next answers."""
        with self._lock:
            self._closed = True
            self._room_in_thread.notify_all()
        self._wake.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _fill_from_thread(self, documents: Iterable[Document]) -> None:
        failure: BaseException | None = None
        try:
            for document in documents:
                entry = entry_of(document, max_document_bytes=self._config.max_document_bytes)
                with self._lock:
                    while self._full() and not self._closed:
                        self._room_in_thread.wait()
                    if self._closed:
                        return
                    news = self._append(entry)
                if news:
                    self._call_in_loop()
        except BaseException as error:  # the caller's own; raised again where the caller reads
            failure = error
        with self._lock:
            self._finished, self.failure = True, failure
        self._call_in_loop()

    async def _fill_from_loop(self, documents: AsyncIterable[Document]) -> None:
        try:
            async for document in documents:
                entry = entry_of(document, max_document_bytes=self._config.max_document_bytes)
                while self._full():
                    self._room_in_loop.clear()
                    await self._room_in_loop.wait()
                with self._lock:
                    news = self._append(entry)
                if news:
                    self._wake.set()
        except (Exception, asyncio.CancelledError) as error:
            # Its own, where nobody has closed this: it waited for something that somebody cancelled.
            self.failure = error
        with self._lock:
            self._finished = True
        self._wake.set()

    def _full(self) -> bool:
        return len(self._entries) >= self._config.batch_count or self._bytes >= self._config.batch_bytes

    def _append(self, entry: Entry) -> bool:
        """Adds a document; true if that is news to whoever waits in `take`."""
        self._entries.append(entry)
        self._bytes += entry.size
        return len(self._entries) == 1 or self._full()

    def _cut(self) -> list[Entry]:
        taken: list[Entry] = []
        ids: set[str] = set()
        size = 0
        while self._entries:
            entry = self._entries[0]
            if taken and (entry.id in ids or size + entry.size > self._config.batch_bytes):
                break
            ids.add(entry.id)
            size += entry.size
            taken.append(self._entries.popleft())
        self._bytes -= size
        self._room_in_thread.notify_all()
        self._room_in_loop.set()
        return taken

    def _call_in_loop(self) -> None:
        # The loop may be closed by now: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)
