"""Around each call of the index: what goes along with it, how long it may take, and what its failures become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
from qdrant_client import context_headers
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from winnow_gateway.backend_faults import named
from winnow_gateway.placements import split_stored
from winnow_gateway.ports import IndexDiskFault, IndexRefused
from winnow_rpc import telemetry
from winnow_rpc.faults import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from winnow_rpc.status import fault_from_rpc_error

T = TypeVar("T")


class MessageTooLarge(ResourceExhausted):
    """A call of the index, or its answer, does not fit into one message: it may in parts."""

    default_reason = "MESSAGE_TOO_LARGE"


@asynccontextmanager
async def asking(collection: str = "", *, timeout: float) -> AsyncIterator[None]:
    """Around a call: the request id and its trace go along, time is bounded to `timeout` seconds, failures become
    faults."""
    try:
        with context_headers.headers(telemetry.outgoing_headers()):
            async with asyncio.timeout(timeout):
                yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"the index did not answer within {timeout:.3g} s", reason="INDEX_TIMEOUT") from error
    except ResourceExhaustedResponse as error:
        raise ResourceExhausted(
            "the index is overloaded", reason="INDEX_OVERLOADED", retry_after=error.retry_after_s
        ) from error
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            # gRPC's own word for it: an index with too much to do says when to come back, and is told apart above.
            raise MessageTooLarge(f"too much for one message of the index: {error.details()}") from error
        raise _index_fault(error, collection) from error


# What Winnow's own index calls the faults of its disk.
_DISK_REASONS = {"DISK_FULL", "DISK_FAILED"}


async def as_many_as_fit(ask: Callable[[int], Awaitable[T]], count: int) -> tuple[int, T]:
    """What a call for so many things, at least 1, answers; for half as many as often as they are too much for one
    message. How many that was comes first."""
    while True:
        try:
            return count, await ask(count)
        except MessageTooLarge:
            if count == 1:
                raise
            count //= 2


def no_collection(name: str) -> NotFound:
    """The fault for a collection, by its name or its stored one, that is not there or is not ours."""
    name, _ = split_stored(name)
    return NotFound(f"there is no collection {name!r}", reason="NO_COLLECTION", metadata={"collection": name})


def _index_fault(error: grpc.aio.AioRpcError, collection: str) -> Fault:
    fault = fault_from_rpc_error(error)
    match fault:
        case NotFound():
            return no_collection(collection)
        case AlreadyExists():
            return AlreadyExists(
                f"collection {collection!r} is there already",
                reason="COLLECTION_EXISTS",
                metadata={"collection": collection},
            )
        case Unavailable():
            return _unavailable(fault)
        case DeadlineExceeded() | Unimplemented() | PermissionDenied() | Unauthenticated():
            return named(fault, "index")
        case InvalidArgument() | FailedPrecondition() | DataLoss():
            # What we made of a request that we had accepted, or a collection whose files it cannot read.
            return IndexRefused(f"the index refused a call: {fault.message}")
        case _:
            return Internal(f"the index failed: {fault.message}", reason="INDEX_FAILED")


def _unavailable(fault: Unavailable) -> Unavailable:
    if fault.reason in _DISK_REASONS:
        return IndexDiskFault(f"the index cannot do this now: {fault.message}", retry_after=1.0)
    return Unavailable(
        "the index cannot be reached",
        reason="INDEX_UNAVAILABLE",
        metadata={"cause": fault.message},
        retry_after=1.0,
    )
