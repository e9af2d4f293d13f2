"""How many tokens of a text, or of each text of a pair, are kept. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TextTruncation(Enum):
    """What happens to a single text that is too long."""

    END = "end"
    """Its end is cut."""
    START = "start"
    """Its beginning is cut; the prompt stays."""
    REFUSE = "refuse"
    """The request is refused."""


class PairTruncation(Enum):
    """What happens to a pair that is too long."""

    LONGEST_FIRST = "longest_first"
    """The longer text is cut until both fit."""
    DOCUMENT_ONLY = "document_only"
    """Only the second text is cut."""
    REFUSE = "refuse"
    """The request is refused."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A text or pair of which not everything is read. Special tokens and prompt are not counted."""

    index: int
    """Its position in the request, from 0."""
    kept: int
    """Tokens that are read."""
    dropped: int
    """Tokens that are not."""


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens to keep of each text of a pair when `room` tokens fit in all.

    The longer one gives way until both are equal, then both do; an odd token goes to the one that was longer, or to the
    second of equals. This is what the tokenizers library does for the strategy of the same name, so that scores equal
    those of the models' reference implementation.
    """
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    # A text no longer than half the room stays whole; else each gets half.
    kept_short, kept_long = (short, room - short) if short <= room // 2 else (room // 2, room - room // 2)
    kept_long = min(kept_long, long)
    return (kept_short, kept_long) if first <= second else (kept_long, kept_short)
