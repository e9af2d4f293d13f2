"""The blocking client, derived from the one for asyncio: each method is that one's, run in a loop in a thread."""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from winnow_client.asynchronous import AsyncClient
from winnow_client.config import ClientConfig
from winnow_client.loop_thread import LoopThread

P = ParamSpec("P")
R = TypeVar("R")


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
        stream = method(self._client, *args, **kwargs)

        async def following() -> list[R]:
            async for item in stream:
                return [item]
            return []

        try:
            while items := self._thread.run(following()):
                yield items[0]
        finally:
            # Not if the client was closed meanwhile: that ended the stream too.
            if not self._closed:
                self._thread.run(stream.aclose())

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
        # Also when the client is forgotten, and at the interpreter's exit.
        self._finalizer = weakref.finalize(self, _shut, self._client, self._thread)

    @property
    def config(self) -> ClientConfig:
        """How this client behaves."""
        return self._client.config

    @property
    def _closed(self) -> bool:
        return not self._finalizer.alive

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


def _shut(client: AsyncClient, thread: LoopThread) -> None:
    with contextlib.suppress(Exception):
        thread.run(client.close())
    thread.stop()
