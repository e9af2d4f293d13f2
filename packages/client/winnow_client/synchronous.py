"""The blocking client, derived from the one for asyncio: each method is that one's, run in a loop in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from winnow_client.asynchronous import AsyncClient
from winnow_client.config import ClientConfig
from winnow_client.loop_thread import LoopThread
from winnow_rpc.faults import Cancelled, FailedPrecondition

P = ParamSpec("P")
R = TypeVar("R")


class _Stream(Generic[R]):
    """A stream in the client's loop. What is taken from it and its closing take turns: a step that Ctrl-C has cancelled
    still takes a moment to end, and a generator that runs cannot be closed."""

    def __init__(self, items: AsyncGenerator[R, None]) -> None:
        self._items = items
        self._turn = asyncio.Lock()
        self._closed = False

    async def next(self) -> list[R]:
        """The next item; none at the end. Raises Cancelled if it was closed before that."""
        async with self._turn:
            if self._closed:
                raise Cancelled("the client was closed during the call", reason="CLIENT_CLOSED")
            async for item in self._items:
                return [item]
            return []

    async def close(self) -> None:
        """Ends it, wherever it is."""
        async with self._turn:
            self._closed = True
            await self._items.aclose()


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Client, P], R]:
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._thread.run(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    call.__module__, call.__qualname__ = __name__, f"Client.{method.__name__}"
    return call


def _blocking_iteration(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Client, P], Generator[R, None, None]]:
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        stream = _Stream(method(self._client, *args, **kwargs))
        self._streams.add(stream)
        try:
            while items := self._thread.run(stream.next()):
                yield items[0]
        finally:
            self._streams.discard(stream)
            # Not if the client was closed meanwhile, which ended the stream too, nor in a process forked meanwhile.
            if self._thread.running:
                with contextlib.suppress(FailedPrecondition, Cancelled):
                    self._thread.run(stream.close())

    functools.update_wrapper(call, method)
    signature = inspect.signature(method)
    returned = (
        str(signature.return_annotation).replace("AsyncGenerator[", "Generator[").replace(", None]", ", None, None]")
    )
    call.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
    call.__module__, call.__qualname__ = __name__, f"Client.{method.__name__}"
    return call


class Client:
    """Speaks to a gateway, and blocks until it answers.

    It connects on first use and reconnects by itself. Use it as `with Client() as client`, or call `close`. It may be
    shared by threads. Errors are Faults (see `winnow_rpc.faults`): `NotFound`, `InvalidArgument`, `Unavailable` and so
    on. `timeout`, in seconds, bounds one call; left out, the configuration's does; `math.inf` takes the limit away.
    """

    def __init__(self, target: str | None = None, *, config: ClientConfig | None = None) -> None:
        """A client of the gateway at `target` ("host:port"), which goes before `config.target`."""
        self._client = AsyncClient(target, config=config)
        self._thread = LoopThread()
        self._streams: set[_Stream[Any]] = set()
        # Also when the client is forgotten, and at the interpreter's exit.
        self._finalizer = weakref.finalize(self, _shut, self._client, self._thread, self._streams)

    @property
    def config(self) -> ClientConfig:
        """How this client behaves."""
        return self._client.config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in progress end with Cancelled. May be called twice."""
        self._finalizer()

    create_collection = _blocking(AsyncClient.create_collection)
    get_collection = _blocking(AsyncClient.get_collection)
    list_collections = _blocking_iteration(AsyncClient.list_collections)
    delete_collection = _blocking(AsyncClient.delete_collection)
    reembed_collection = _blocking_iteration(AsyncClient.reembed_collection)
    ingest = _blocking_iteration(AsyncClient.ingest)
    get_document = _blocking(AsyncClient.get_document)
    list_documents = _blocking_iteration(AsyncClient.list_documents)
    delete_documents = _blocking(AsyncClient.delete_documents)
    search = _blocking(AsyncClient.search)
    stream_search = _blocking_iteration(AsyncClient.stream_search)


def _shut(client: AsyncClient, thread: LoopThread, streams: set[_Stream[Any]]) -> None:
    async def close() -> None:
        await client.close()
        await asyncio.gather(*(stream.close() for stream in tuple(streams)), return_exceptions=True)

    # In a process forked meanwhile there is nothing to close: where gRPC does not work, no loop begins.
    if thread.running:
        with contextlib.suppress(Exception):
            thread.run(close())
    thread.stop()
