"""Refuses what a request carries and this index cannot honour, so that nothing is ignored in silence."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from qdrant_client import grpc as pb

from winnow_index.schema import Limits
from winnow_rpc.faults import InvalidArgument, Unimplemented

_BAD_IN_NAMES = frozenset('<>:"/\\|?*\0\x1f')


def unknown_fields(request: Message) -> None:
    """Raises Unimplemented if the request, at any depth, has fields that this version of the protocol does not."""
    before = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != before:
        raise Unimplemented(
            "the request has fields that this index does not know; its client speaks a newer protocol",
            reason="UNKNOWN_FIELDS",
        )


def unknown_choices(message: Message, path: str = "") -> None:
    """Raises InvalidArgument if an enumeration, at any depth, holds a number that it does not have, or a placement in
    memory the unknown one.

    Either would be told again with the collection, and clients cannot read that.
    """
    for descriptor, value in message.ListFields():
        place = f"{path}{descriptor.name}"
        if descriptor.enum_type is not None and not descriptor.is_repeated:
            unknown = descriptor.name == "memory" and value == pb.Memory.MemoryUnknown
            if unknown or value not in descriptor.enum_type.values_by_number:
                kind = descriptor.enum_type.name
                raise InvalidArgument(f"{place}: {value} is no {kind} to choose", field=place, reason="UNKNOWN_CHOICE")
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            inner = [(f"{place}[{key}].", each) for key, each in value.items()]
        else:
            inner = [(f"{place}.", each) for each in (value if descriptor.is_repeated else [value])]
        for prefix, each in inner:
            if isinstance(each, Message):
                unknown_choices(each, prefix)


def shard_keys(request: Message, field: str = "shard_key_selector") -> None:
    """Raises Unimplemented if a request picks shards by key."""
    if request.HasField(field):
        raise Unimplemented(f"{field}: this index has one shard and no shard keys", reason="CLUSTER_NOT_OFFERED")


def too_many(items: Sequence[object], *, limit: int, field: str) -> None:
    """Raises InvalidArgument if a request holds more items than the limit."""
    if len(items) > limit:
        raise InvalidArgument(
            f"{field}: {len(items)} items in one request, at most {limit} are taken",
            field=field,
            reason="BATCH_TOO_LARGE",
            metadata={"limit": str(limit), "got": str(len(items))},
        )


def limit_too_large(*, limit: int, offset: int, limits: Limits, field: str = "limit") -> None:
    """Raises InvalidArgument if a page reaches further than one request may."""
    if limit + offset > limits.max_limit:
        raise InvalidArgument(
            f"{field}: limit and offset together may be at most {limits.max_limit}, got {limit + offset}",
            field=field,
            reason="LIMIT_TOO_LARGE",
            metadata={"limit": str(limits.max_limit), "got": str(limit + offset)},
        )


def collection_name(name: str, field: str = "collection_name") -> str:
    """The name, if a collection or alias may be called so; else raises InvalidArgument."""
    if not name or len(name) > 255:
        raise InvalidArgument(
            f"Wrong input: {field} must have 1 to 255 characters, got {len(name)}", field=field, reason="BAD_NAME"
        )
    if bad := sorted(_BAD_IN_NAMES.intersection(name)):
        raise InvalidArgument(f"Wrong input: {field} cannot contain {bad[0]!r}", field=field, reason="BAD_NAME")
    return name


def payload_too_large(point: pb.PointStruct, *, limits: Limits, field: str) -> None:
    """Raises InvalidArgument if a point's payload is larger than the limit."""
    size = point.ByteSize() - (point.vectors.ByteSize() if point.HasField("vectors") else 0)
    if size > limits.max_payload_bytes:
        raise InvalidArgument(
            f"{field}.payload: {size} bytes, at most {limits.max_payload_bytes} are taken",
            field=f"{field}.payload",
            reason="PAYLOAD_TOO_LARGE",
            metadata={"limit": str(limits.max_payload_bytes), "got": str(size)},
        )
