"""Page tokens: opaque to callers, and refused when they are not ours."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable

from winnow_rpc.faults import InvalidArgument


def write_token(kind: str, position: str | None) -> str:
    """A token for the page that begins after `position`; empty if there is none."""
    if position is None:
        return ""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def is_point(position: str) -> bool:
    """Whether a position can be a point of the index, where pages of documents begin."""
    try:
        return str(uuid.UUID(position)) == position
    except ValueError:
        return False


def read_token(kind: str, token: str, *, possible: Callable[[str], bool] = bool) -> str | None:
    """The position in a token that `write_token` made for the same kind of list; None for the empty token.

    Raises InvalidArgument, reason BAD_PAGE_TOKEN, for any other, and for a position that is not `possible`.
    """
    if not token:
        return None
    try:
        found, _, position = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        found, position = "", ""
    if found != kind or not possible(position):
        raise InvalidArgument(
            "the page token is not one that this list gave", field="page_token", reason="BAD_PAGE_TOKEN"
        )
    return position
