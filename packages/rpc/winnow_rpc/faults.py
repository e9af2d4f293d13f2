"""The one tree of exceptions that cross a service boundary. Knows nothing of gRPC: `winnow_rpc.status` does.

Fault
├── InvalidArgument     the request itself is wrong; names the fields
├── NotFound            what it names is not there
├── AlreadyExists       what it would make is there
├── FailedPrecondition  right in itself, but not in the state things are in
├── Aborted             lost against something concurrent; may be repeated from the start
├── PermissionDenied    the caller may not do this
├── Unauthenticated     who the caller is could not be established
├── ResourceExhausted   too much at once; may say when to come back
├── Unavailable         not now; may say when to come back
├── DeadlineExceeded    the caller's time ran out
├── Cancelled           the caller went away
├── Unimplemented       not offered here
├── DataLoss            what was stored cannot be read
└── Internal            a mistake of ours
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_QUOTED = 80


def quoted(value: str) -> str:
    """A value of a request as a message repeats it: in quotes, of a long one its beginning."""
    return repr(value) if len(value) <= _QUOTED else f"{value[:_QUOTED]!r}..."


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that breaks a rule."""

    field: str
    """Path of the field within the request, as in the contract: `batch.documents[3].id`."""
    description: str
    """What is wrong with it, with the limit where there is one."""


class Fault(Exception):
    """A failure that a caller is told of.

    `message` is one sentence for a person; `reason` a stable code in capitals for machines; `metadata` the facts
    behind it; `retry_after` the seconds after which to try again, where that helps.
    """

    default_reason = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class InvalidArgument(Fault):
    """The request itself is wrong, whatever the state of the system; `violations` names the fields."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Sequence[FieldViolation] = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        own = (FieldViolation(field, message),) if field else ()
        self.violations: tuple[FieldViolation, ...] = own + tuple(violations)


class NotFound(Fault):
    """What the request names is not there."""

    default_reason = "NOT_FOUND"


class AlreadyExists(Fault):
    """What the request would make is there already."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(Fault):
    """The request is right in itself, but not in the state that things are in."""

    default_reason = "FAILED_PRECONDITION"


class Aborted(Fault):
    """The request lost against something concurrent; it may be repeated from the start."""

    default_reason = "ABORTED"


class PermissionDenied(Fault):
    """The caller is known, and may not do this."""

    default_reason = "PERMISSION_DENIED"


class Unauthenticated(Fault):
    """Who the caller is could not be established."""

    default_reason = "UNAUTHENTICATED"


class ResourceExhausted(Fault):
    """Too much at once."""

    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(Fault):
    """Cannot be done now; the same request may succeed later."""

    default_reason = "UNAVAILABLE"


class DeadlineExceeded(Fault):
    """The caller's time ran out."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(Fault):
    """The caller went away."""

    default_reason = "CANCELLED"


class Unimplemented(Fault):
    """Not offered here."""

    default_reason = "UNIMPLEMENTED"


class DataLoss(Fault):
    """What was stored cannot be read any more."""

    default_reason = "DATA_LOSS"


class Internal(Fault):
    """A mistake of ours; the details are in the log, under the request's id."""

    default_reason = "INTERNAL"
