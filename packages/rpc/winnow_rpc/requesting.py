"""What a call must pass before its method runs: who calls, whether he may, and whether his bytes are a message."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from winnow_rpc.faults import InvalidArgument, PermissionDenied

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""What answers whoever is let in by TLS: it tells nothing of what is stored."""


class Authorizer(Protocol):
    """Decides who may call what."""

    def admit(self, method: str, metadata: Metadata) -> None:
        """Before anything of a request is read. `method` is "/package.Service/Method". Raises Unauthenticated or
        PermissionDenied."""

    def permit(self, method: str, request: Any) -> None:
        """With the request, or the first message of a stream. Raises PermissionDenied."""


class RequestInterceptor(grpc.aio.ServerInterceptor):
    """Refuses clients by the name in their certificate, callers by the authorizer, and bytes that are no message.

    Requests are parsed here: nothing is made of the bytes of a caller who may not call, and what cannot be parsed is
    INVALID_ARGUMENT, where gRPC itself would say UNKNOWN. Stands inside of the FaultInterceptor, which answers faults.
    """

    def __init__(self, *, authorizer: Authorizer | None = None, client_names: Sequence[str] = ()) -> None:
        self._authorizer = authorizer
        self._client_names = frozenset(client_names)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the handler, whichever of the four kinds it is."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN):
            return handler
        call = _Call(
            method,
            handler_call_details.invocation_metadata or (),
            handler.request_deserializer,
            self._authorizer,
            self._client_names,
        )
        serializer = handler.response_serializer
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                call.streaming(handler.stream_stream, call.messages), None, serializer
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                call.single(handler.stream_unary, call.messages), None, serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                call.streaming(handler.unary_stream, call.message), None, serializer
            )
        return grpc.unary_unary_rpc_method_handler(call.single(handler.unary_unary, call.message), None, serializer)


class _Call:
    """One call on its way to its method."""

    def __init__(
        self,
        method: str,
        metadata: Metadata,
        parse: Callable[[bytes], Any] | None,
        authorizer: Authorizer | None,
        client_names: frozenset[str],
    ) -> None:
        self._method = method
        self._metadata = metadata
        self._deserialize = parse
        self._authorizer = authorizer
        self._client_names = client_names

    def single(self, behaviour: Any, read: Callable[[Any], Any]) -> Any:
        async def call(incoming: Any, context: Context) -> Any:
            self._admit(context)
            return await behaviour(read(incoming), context)

        return call

    def streaming(self, behaviour: Any, read: Callable[[Any], Any]) -> Any:
        async def call(incoming: Any, context: Context) -> AsyncIterator[Any]:
            self._admit(context)
            async with contextlib.aclosing(behaviour(read(incoming), context)) as responses:
                async for response in responses:
                    yield response

        return call

    def message(self, incoming: bytes) -> Any:
        request = self._parse(incoming)
        self._permit(request)
        return request

    async def messages(self, incoming: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        first = True
        async for each in incoming:
            request = self._parse(each)
            if first:
                self._permit(request)
                first = False
            yield request

    def _admit(self, context: Context) -> None:
        if self._client_names and not self._client_names & peer_names(context):
            raise PermissionDenied("the client's certificate bears no name that may call here", reason="CLIENT_NAME")
        if self._authorizer:
            self._authorizer.admit(self._method, self._metadata)

    def _permit(self, request: Any) -> None:
        if self._authorizer:
            self._authorizer.permit(self._method, request)

    def _parse(self, incoming: bytes) -> Any:
        if self._deserialize is None:
            return incoming
        try:
            return self._deserialize(incoming)
        except DecodeError as error:
            raise InvalidArgument("the request is no message of this method's type", reason="MALFORMED") from error


def peer_names(context: Context) -> frozenset[str]:
    """The names in the certificate that the client showed; empty if it showed none."""
    shown = context.auth_context()
    names = [*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ())]
    return frozenset(name.decode("utf-8", "replace") for name in names)
