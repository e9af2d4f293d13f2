"""A method's handler with something around it, whichever of gRPC's four kinds it is."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Asked every few seconds by orchestrators, and nothing of what is stored is in their answers.
_OF_THE_HOUSE = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class HandlerInterceptor(grpc.aio.ServerInterceptor, ABC):
    """Wraps the handler of every call. Health checks and reflection are let through as they are."""

    @abstractmethod
    def wrap(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        """The handler that takes the place of this one, for one call."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Finds the handler and wraps it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OF_THE_HOUSE):
            return handler
        return self.wrap(handler, handler_call_details)


def around(
    handler: Handler,
    surroundings: Callable[[Context], AbstractAsyncContextManager[None]],
    many: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]],
) -> Handler:
    """The handler, each call of which is made within a context manager that is made for it; its requests, if they are a
    stream, are read through `many`."""

    def one(request: Any, _context: Context) -> Any:
        return request

    return _made(handler, surroundings, many if handler.request_streaming else one, handler.request_deserializer)


def reading(
    handler: Handler, one: Callable[[bytes, Context], Any], many: Callable[[AsyncIterator[bytes], Context], Any]
) -> Handler:
    """The handler, which is given what is made of its request's bytes: by `one`, or by `many` if they are a stream.

    Both are called before anything else of the handler is.
    """

    def nothing(_context: Context) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    return _made(handler, nothing, many if handler.request_streaming else one, None)


def _made(
    handler: Handler,
    surroundings: Callable[[Context], AbstractAsyncContextManager[None]],
    read: Callable[[Any, Context], Any],
    deserializer: Any,
) -> Handler:
    behaviour: Any = handler.stream_stream or handler.unary_stream or handler.stream_unary or handler.unary_unary

    async def single(incoming: Any, context: Context) -> Any:
        async with surroundings(context):
            return await behaviour(read(incoming, context), context)

    async def streaming(incoming: Any, context: Context) -> AsyncIterator[Any]:
        # Closed at once when the caller goes away, not when the garbage collector comes by.
        async with surroundings(context), contextlib.aclosing(behaviour(read(incoming, context), context)) as responses:
            async for response in responses:
                yield response

    serializer: Any = handler.response_serializer
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(streaming, deserializer, serializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(streaming, deserializer, serializer)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(single, deserializer, serializer)
    return grpc.unary_unary_rpc_method_handler(single, deserializer, serializer)
