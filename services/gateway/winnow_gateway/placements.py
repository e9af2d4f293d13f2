"""Which collections of the index a collection of ours means, while its documents are embedded anew and after. Pure.

A collection is first kept under its own name, and after each re-embedding under its name with a mark of the model:
`notes~6d3c0a41f0e2`. Aliases of the index, which all gateways see and which move at once, say what each is for:
`notes~live` answers (where there is no such alias, `notes` does), `notes~next` is being filled, `notes~held` is full,
and is called so while writes wait for it to take the place of the live one, `notes~former` did answer, and
`notes~journal` has an entry for each write that the next one may lack. No name of a caller's has a `~`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

_MARK = "~"


class Role(Enum):
    """What a collection of the index is for."""

    LIVE = "live"
    NEXT = "next"
    HELD = "held"
    FORMER = "former"
    JOURNAL = "journal"
    SWITCHING = "switching"
    """Taken in passing, so that of two who would switch only one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The collections of the index behind one name, by what they are for."""

    name: str
    live: str
    """Answers searches, and is written to."""
    next: str | None = None
    """Is being filled with vectors of another model."""
    held: bool = False
    """Whether `next` is about to answer, so that no write to `live` may be acknowledged."""
    former: str | None = None
    """Answered before `live`."""
    journal: str | None = None
    """Is to be told of each write to `live`, before that is acknowledged. Every run that fills `next` has its own."""

    @property
    def oldest_first(self) -> tuple[str, ...]:
        """All of them, each after the one that it is filled from."""
        found = (self.former, self.live, self.next)
        # One that is both, for it is filled again, comes last.
        return tuple(each for at, each in enumerate(found) if each and each not in found[at + 1 :])


def stored_name(name: str, revision: str) -> str:
    """The name in the index of one revision of a collection; "" is the first."""
    return f"{name}{_MARK}{revision}" if revision else name


def split_stored(stored: str) -> tuple[str, str]:
    """The inverse of `stored_name`."""
    name, _, revision = stored.partition(_MARK)
    return name, revision


def alias(name: str, role: Role) -> str:
    """The alias that says which collection of the index has a role."""
    return f"{name}{_MARK}{role.value}"


def read_placement(name: str, aliases: Mapping[str, str]) -> Placement:
    """The placement of a name, from the index's aliases (alias → collection)."""
    roles = {role: aliases.get(alias(name, role)) for role in Role}
    live = roles[Role.LIVE] or name
    # A Qdrant server that died within a switch may have left the role that is taken in passing.
    filled = roles[Role.HELD] or roles[Role.NEXT] or roles[Role.SWITCHING]
    if filled == live:
        # Of a run that began while another one switched: it is not to be filled any more, and never to be removed.
        filled = None
    return Placement(
        name=name,
        live=live,
        next=filled,
        held=filled is not None and roles[Role.HELD] is not None,
        former=roles[Role.FORMER],
        journal=roles[Role.JOURNAL] if filled else None,
    )
