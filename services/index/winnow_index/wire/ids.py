"""Point ids: unsigned 64-bit numbers or UUIDs."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from qdrant_client import grpc as pb

from winnow_index.engine import PointId
from winnow_rpc.faults import InvalidArgument, quoted


def from_wire(message: pb.PointId, field: str) -> PointId:
    """The id in a message. Raises InvalidArgument if it is missing or not a UUID."""
    kind = message.WhichOneof("point_id_options")
    if kind == "num":
        return int(message.num)
    if kind == "uuid":
        try:
            return UUID(message.uuid)
        except ValueError:
            raise InvalidArgument(
                f"{field}: Unable to parse UUID: {quoted(message.uuid)} is neither a UUID nor an unsigned integer",
                field=field,
                reason="BAD_POINT_ID",
            ) from None
    raise InvalidArgument(f"{field}: a point id is missing", field=field, reason="BAD_POINT_ID")


def many_from_wire(messages: Iterable[pb.PointId], field: str) -> list[PointId]:
    """The ids in messages, each once, in the order of their first appearance."""
    return list(dict.fromkeys(from_wire(message, f"{field}[{n}]") for n, message in enumerate(messages)))


def to_wire(point_id: PointId) -> pb.PointId:
    """A message for an id."""
    return pb.PointId(num=point_id) if isinstance(point_id, int) else pb.PointId(uuid=str(point_id))
