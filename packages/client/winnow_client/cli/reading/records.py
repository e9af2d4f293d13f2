"""What readers yield: rows, documents, and what was refused, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from winnow_client.documents import Document

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""A line, a row or a file larger than this is refused unread. The gateway's own limit is 1 MiB of text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read."""

    file: str
    """Path of the file as it was given, or "-" for standard input."""
    line: int | None = None
    """Line from 1; for Parquet the row from 1; None for the file as a whole."""

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """Fields that are to become a document."""

    place: Place
    """Where it was read."""
    fields: Mapping[str, Any]
    """Its fields by name."""


@dataclass(frozen=True, slots=True)
class Item:
    """A document that is to be indexed."""

    place: Place
    """Where it was read."""
    document: Document
    """The document."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that did not become a document, or was refused by the gateway."""

    place: Place
    """Where it was read."""
    reason: str
    """A stable code in capitals, for machines."""
    message: str
    """One sentence for a person."""
    id: str | None = None
    """Id of the document, if it is known."""


class Unfit(Exception):
    """A row that cannot become a document."""

    def __init__(self, reason: str, message: str, *, id: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.id = id


class Meter:
    """How much of the input has been read, in bytes, as far as that can be known."""

    def __init__(self) -> None:
        self.total: int | None = 0
        """Bytes in all; None if something has no end that is known, as standard input."""
        self.done = 0
        """Bytes read."""
        self.current = ""
        """File that is being read."""
