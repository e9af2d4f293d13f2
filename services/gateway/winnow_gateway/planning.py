"""What a search will do. A pure function of the request; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from winnow_rpc.faults import Unimplemented

DEFAULT_LIMIT = 10
MAX_LIMIT = 1_000
DEFAULT_DEPTH = 100
MAX_DEPTH = 1_000


class SearchMode(Enum):
    """Which stages answer."""

    RETRIEVE = "retrieve"
    TWO_STAGE = "two-stage"
    EXHAUSTIVE = "exhaustive"
    LEXICAL = "lexical"
    AUTO = "auto"


class RetrievalKind(Enum):
    """What the first stage looks at."""

    DENSE = "dense"
    HYBRID = "hybrid"
    LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search will do."""

    mode: SearchMode
    reason: str
    """Why this mode, for a person."""
    candidates: int
    """How many to retrieve."""
    depth: int
    """How many of them to rerank, best first; 0: none."""


def plan_search(*, mode: SearchMode | None, limit: int, depth: int) -> Plan:
    """Plans a search. `mode` None is the default mode, `limit` and `depth` are positive and within their bounds.

    Raises Unimplemented for a mode that this gateway does not have.
    """
    if mode in (SearchMode.RETRIEVE, SearchMode.LEXICAL):
        return Plan(mode, "asked for", candidates=limit, depth=0)
    if mode is SearchMode.TWO_STAGE or mode is None:
        reason = "the default" if mode is None else "asked for"
        return Plan(SearchMode.TWO_STAGE, reason, candidates=max(limit, depth), depth=depth)
    raise Unimplemented(
        f"this gateway does not have the search mode {mode.name}; RETRIEVE, TWO_STAGE and LEXICAL are there",
        reason="MODE_NOT_OFFERED",
        metadata={"mode": mode.name},
    )


def choose_kind(*, mode: SearchMode, asked: RetrievalKind | None, lexical: bool) -> RetrievalKind | None:
    """What the first stage looks at; None if that needs a BM25 index and the collection has none (`lexical`)."""
    if mode is SearchMode.LEXICAL:
        return RetrievalKind.LEXICAL if lexical else None
    if asked is None:
        return RetrievalKind.HYBRID if lexical else RetrievalKind.DENSE
    return asked if lexical or asked is RetrievalKind.DENSE else None
