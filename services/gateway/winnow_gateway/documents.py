"""Documents, their identity in the index, and the hash that tells whether they changed."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What metadata may hold."""


@dataclass(frozen=True, slots=True)
class Document:
    """A unit of text that can be found."""

    id: str
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def passage(self) -> str:
        """What the models read: title and text together."""
        return f"{self.title}\n{self.text}" if self.title else self.text

    @property
    def content_hash(self) -> str:
        """Hex digest, 32 characters, over everything that a caller can change about the document but its id."""
        content = json.dumps(
            [self.title, self.text, self.metadata], ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as the index holds it."""

    document: Document
    content_hash: str
    updated: datetime


@dataclass(frozen=True, slots=True)
class DocumentView:
    """What of a document to read, beside its id."""

    text: bool = True
    metadata: bool = True


WHOLE_DOCUMENT = DocumentView()
"""Everything of a document."""


HEAD_BYTES = 16 * 1024
"""How much of a text is read for every candidate of a search: more than any model here reads (512 tokens)."""


def split_text(text: str) -> tuple[str, str]:
    """The head of a text, at most HEAD_BYTES of UTF-8, and the rest."""
    encoded = text.encode()
    if len(encoded) <= HEAD_BYTES:
        return text, ""
    # A character that the cut would split goes to the rest whole.
    head = encoded[:HEAD_BYTES].decode(errors="ignore")
    return head, text[len(head) :]


def point_id(document_id: str, passage: int = 0) -> str:
    """The point of the index that holds a passage of a document: a UUID, the same on every machine and at every time.

    Callers' ids are any string, while Qdrant takes whole numbers and UUIDs only. 122 bits of BLAKE2b leave two of a
    billion ids the same with a chance under 10^-18. Each document is one passage, number 0.
    """
    digest = hashlib.blake2b(f"{passage}\0{document_id}".encode(), digest_size=16, person=b"winnow.point").digest()
    # RFC 9562 leaves version 8 to whoever makes the id; `uuid` itself knows it only from Python 3.14 on.
    bits = int.from_bytes(digest, "big") & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=bits | (0x8 << 76) | (0x2 << 62)))
