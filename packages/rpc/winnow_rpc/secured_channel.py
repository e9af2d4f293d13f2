"""A channel that shows a key with every call, and connects anew when its certificates have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc

from winnow_rpc.reloading import Reloaded
from winnow_rpc.tls import ClientFiles

_GRACE_SECONDS = 24 * 3600.0
"""How long calls over a connection with former certificates may take to end."""


class SecuredChannel(grpc.aio.Channel):
    """Stands for the channel that is right now. Each call takes that one; those in progress end where they began.

    gRPC for Python can change a server's certificates under way but not a client's, so a channel is replaced whole.
    """

    def __init__(
        self,
        open_: Callable[[ClientFiles | None], grpc.aio.Channel],
        files: Reloaded[ClientFiles] | None,
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._open = open_
        self._files = files
        self._metadata = tuple(metadata)
        self._used = files.current() if files else None
        self._channel = open_(self._used)
        self._generation = 0
        self._closing: set[asyncio.Task[None]] = set()

    def current(self) -> tuple[int, grpc.aio.Channel]:
        """The channel for a call that begins now, and its number."""
        latest = self._files.current() if self._files else None
        if latest is not self._used:
            retired = asyncio.create_task(self._channel.close(_GRACE_SECONDS), name="retired channel")
            self._closing.add(retired)
            retired.add_done_callback(self._closing.discard)
            self._used, self._channel = latest, self._open(latest)
            self._generation += 1
        return self._generation, self._channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes it, and those that it replaced, whose calls are cancelled."""
        for retired in tuple(self._closing):
            retired.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """State of the channel that is right now."""
        return self.current()[1].get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits on the channel that is right now."""
        await self.current()[1].wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits on the channel that is right now."""
        await self.current()[1].channel_ready()

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of one message for one."""
        return self._method("unary_unary", method, args, options)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of a stream for one message."""
        return self._method("unary_stream", method, args, options)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of one message for a stream."""
        return self._method("stream_unary", method, args, options)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of a stream for a stream."""
        return self._method("stream_stream", method, args, options)

    def _method(self, kind: str, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        made_for, callable_ = -1, None

        def call(*call_args: Any, metadata: Any = None, **call_options: Any) -> Any:
            nonlocal made_for, callable_
            generation, channel = self.current()
            if generation != made_for:
                made_for, callable_ = generation, getattr(channel, kind)(method, *args, **options)
            if self._metadata:
                metadata = (*(metadata or ()), *self._metadata)
            return callable_(*call_args, metadata=metadata, **call_options)  # type: ignore[misc]

        return call
