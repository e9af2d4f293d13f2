"""Documents, and what becomes of them when they are ingested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from winnow_rpc.faults import Fault


class IngestOutcome(StrEnum):
    """What became of an ingested document."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    INDEXED = "indexed"
    """Written, and on disk."""
    UNCHANGED = "unchanged"
    """Already there with the same content under the same model; nothing was embedded or written."""
    REFUSED = "refused"
    """Not written; `refusal` says why."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A unit of text that can be found."""

    id: str
    """Its id within the collection, chosen by the caller: 1 to 512 bytes. Writing an id again replaces the document."""
    text: str = ""
    """Its text, at most 1 MiB. Title and text may not both be blank."""
    title: str = ""
    """Its title, at most 4,096 bytes; embedded and reranked together with the text."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Anything else to keep and to filter on, as JSON would hold it: at most 64 KiB and 16 levels, numbers finite,
    whole numbers between -2^53 and 2^53."""


@dataclass(frozen=True, kw_only=True)
class StoredDocument:
    """A document as the collection holds it."""

    document: Document
    """The document."""
    update_time: datetime | None
    """When it was written last, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """What became of one ingested document."""

    sequence: int
    """Its position in what was given to `ingest`, from 0."""
    id: str
    """Its id."""
    outcome: IngestOutcome
    """What became of it."""
    refusal: Fault | None = None
    """Why it was refused; None unless `outcome` is REFUSED."""
    dropped_token_count: int = 0
    """Tokens that the model did not read because the text is too long; known for INDEXED only."""
