"""What a call must pass before its method runs: who calls, whether he may, and whether his bytes are a message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from winnow_rpc.faults import InvalidArgument, PermissionDenied
from winnow_rpc.wrapping import Context, Handler, HandlerInterceptor, reading

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Authorizer(Protocol):
    """Decides who may call what."""

    def admit(self, method: str, metadata: Metadata) -> None:
        """Before anything of a request is read. `method` is "/package.Service/Method". Raises Unauthenticated or
        PermissionDenied."""

    def permit(self, method: str, request: Any) -> None:
        """With the request, or the first message of a stream. Raises PermissionDenied."""


class RequestInterceptor(HandlerInterceptor):
    """Refuses clients by the name in their certificate, callers by the authorizer, and bytes that are no message.

    Requests are parsed here: nothing is made of the bytes of a caller who may not call, and what cannot be parsed is
    INVALID_ARGUMENT, where gRPC itself would say UNKNOWN. Stands inside of the FaultInterceptor, which answers faults.
    """

    def __init__(self, *, authorizer: Authorizer | None = None, client_names: Sequence[str] = ()) -> None:
        self._authorizer = authorizer
        self._client_names = frozenset(client_names)

    def wrap(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        """Lets the call pass, or not."""
        call = _Call(
            details.method,
            details.invocation_metadata or (),
            handler.request_deserializer,
            self._authorizer,
            self._client_names,
        )
        return reading(handler, call.message, call.messages)


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

    def message(self, incoming: bytes, context: Context) -> Any:
        self._admit(context)
        request = self._parse(incoming)
        self._permit(request)
        return request

    def messages(self, incoming: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        self._admit(context)
        return self._parsed(incoming)

    async def _parsed(self, incoming: AsyncIterator[bytes]) -> AsyncIterator[Any]:
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
