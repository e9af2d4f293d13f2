"""Faults to gRPC statuses and back: google.rpc.Status with ErrorInfo, BadRequest and RetryInfo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from winnow_rpc import faults

DOMAIN = "winnow.dev"
"""The `domain` of every ErrorInfo: whose the reasons are."""

CODES: dict[type[faults.Fault], grpc.StatusCode] = {
    faults.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    faults.NotFound: grpc.StatusCode.NOT_FOUND,
    faults.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    faults.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    faults.Aborted: grpc.StatusCode.ABORTED,
    faults.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    faults.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    faults.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    faults.Unavailable: grpc.StatusCode.UNAVAILABLE,
    faults.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    faults.Cancelled: grpc.StatusCode.CANCELLED,
    faults.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    faults.DataLoss: grpc.StatusCode.DATA_LOSS,
    faults.Internal: grpc.StatusCode.INTERNAL,
}
"""Every kind of fault and its status code; a test proves that none is missing."""

# https://github.com/grpc/proposal/blob/master/L44-python-rich-status.md
_DETAILS_KEY = "grpc-status-details-bin"

# A status travels in HTTP/2 headers, of which gRPC takes 8 KiB, the message in them percent-encoded and once more in
# the details. What a caller sent may be repeated in it and in the log, but not at any length.
_MESSAGE_BYTES, _FACT_BYTES = 1024, 512

_FAULTS = {code: kind for kind, code in CODES.items()} | {
    # These have no fault of their own: gRPC itself sends them.
    grpc.StatusCode.OUT_OF_RANGE: faults.InvalidArgument,
    grpc.StatusCode.UNKNOWN: faults.Internal,
}


def code_of(fault: faults.Fault) -> grpc.StatusCode:
    """The gRPC status code of a fault."""
    for kind in type(fault).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.UNKNOWN


def status_of(fault: faults.Fault) -> status_pb2.Status:
    """A fault as google.rpc.Status, with its details, long ones cut."""
    facts = {key: _brief(value, _FACT_BYTES) for key, value in fault.metadata.items()}
    details = [error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=facts)]
    packed = [_pack(detail) for detail in details]
    if isinstance(fault, faults.InvalidArgument) and fault.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_brief(v.field, _FACT_BYTES), description=_brief(v.description, _MESSAGE_BYTES)
            )
            for v in fault.violations
        ]
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
    if fault.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMicroseconds(round(fault.retry_after * 1e6))
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    message = _brief(fault.message, _MESSAGE_BYTES)
    return status_pb2.Status(code=code_of(fault).value[0], message=message, details=packed)


def fault_of(status: status_pb2.Status) -> faults.Fault:
    """The fault that a google.rpc.Status stands for; the inverse of `status_of` for every fault of ours whose
    texts are not too long."""
    code = next((c for c in grpc.StatusCode if c.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMicroseconds() / 1e6
        elif not detail.Unpack(info):
            detail.Unpack(bad)
    kind = _FAULTS.get(code, faults.Internal)
    message = status.message or code.name.replace("_", " ").lower()
    reason = info.reason or code.name
    if kind is faults.Cancelled and not info.reason:
        # Who cancels a call of his own is not told so by a status. This is gRPC's word for a call whose server stopped,
        # mostly before it had taken the call up.
        kind, reason = faults.Unavailable, faults.Unavailable.default_reason
        message = "the server stopped before it had answered"
    metadata = dict(info.metadata)
    if issubclass(kind, faults.InvalidArgument):
        violations = [faults.FieldViolation(v.field, v.description) for v in bad.field_violations]
        return kind(message, violations=violations, reason=reason, metadata=metadata)
    return kind(message, reason=reason, metadata=metadata, retry_after=retry_after)


def fault_from_rpc_error(error: grpc.RpcError) -> faults.Fault:
    """The fault behind an error that a gRPC call raised, ours with all its details or one made of code and text."""
    code = error.code()
    message = error.details() or ""
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            rich = status_pb2.Status.FromString(value)
            # A proxy may have replaced code and message without knowing of the details; then the outer word counts.
            if rich.code == code.value[0]:
                return fault_of(rich)
    return fault_of(status_pb2.Status(code=code.value[0], message=message))


def _brief(text: str, most: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "..."


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
