"""What a cache keeps: what was used of late, within a size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry, as it is looked at to decide whether it stays."""

    key: str
    """Its name."""
    last_used: float
    """When it was last used, in seconds since the epoch."""
    size: int
    """Bytes on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long and how much is kept."""

    days: float = 30.0
    """What was not used for so long goes; 0: nothing goes for its age."""
    size: int = 16 * 1024**3
    """Bytes of all entries: beyond it those go that were used least recently; 0: no limit."""

    def outlived(self, entries: Iterable[Kept], *, in_use: int, now: float) -> Sequence[tuple[Kept, str]]:
        """The entries that go, each with the reason, those used least recently first.

        `entries` are those that nobody uses; `in_use`: bytes of those that somebody does, which count and stay.
        """
        oldest_first = sorted(entries, key=lambda entry: (entry.last_used, entry.key))
        size = in_use + sum(entry.size for entry in oldest_first)
        gone = []
        for entry in oldest_first:
            if self.days and now - entry.last_used > self.days * _SECONDS_A_DAY:
                why = "unused for too long"
            elif self.size and size > self.size:
                why = "the cache is too large"
            else:
                continue
            size -= entry.size
            gone.append((entry, why))
        return gone
