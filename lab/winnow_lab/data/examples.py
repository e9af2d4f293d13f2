"""What training data is made of. Values alone: no file is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from winnow_lab.data.beir import JudgedQuery


class Kind(StrEnum):
    """What an example of some data says."""

    RETRIEVAL = "retrieval"
    """Which documents of a corpus answer which queries: a folder in the BEIR layout."""
    SCORED_PAIRS = "scored-pairs"
    """How alike two texts are: sentence1, sentence2, score."""
    PAIRS = "pairs"
    """Which text goes with which: anchor, positive."""
    TRIPLETS = "triplets"
    """The same, and texts that do not: anchor, positive, negative (and negative_1, negative_2 …)."""
    GROUPS = "groups"
    """How well each of several documents answers a query: query, documents, labels."""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and how alike they are, 0 to 1."""

    sentence1: str
    sentence2: str
    score: float


@dataclass(frozen=True, slots=True)
class Triplet:
    """A text, one that goes with it, and any number that do not."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A query and at least two documents, each with its label: the higher, the better it answers."""

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]
    """Grades from 0, or a teacher's scores, which may be any number."""

    @property
    def orders(self) -> bool:
        """Whether the labels order anything: they are not all the same."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True, kw_only=True)
class _Data:
    source: str
    """Where it was read, for people."""
    notes: tuple[str, ...] = ()
    """What a person should know of how it was read, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class ScoredPairs(_Data):
    """Data of the kind `scored-pairs`."""

    pairs: Sequence[ScoredPair]


@dataclass(frozen=True, kw_only=True)
class Triplets(_Data):
    """Data of the kinds `pairs` and `triplets`; all triplets have the same number of negatives."""

    triplets: Sequence[Triplet]

    @property
    def negatives(self) -> int:
        """Negatives of each."""
        return len(self.triplets[0].negatives) if self.triplets else 0


@dataclass(frozen=True, kw_only=True)
class Groups(_Data):
    """Data of the kind `groups`."""

    groups: Sequence[Group]


@dataclass(frozen=True, kw_only=True)
class JudgedSet(_Data):
    """Data of the kind `retrieval`."""

    documents: dict[str, str] = field(repr=False)
    """Id → what a model reads of the document."""
    queries: Sequence[JudgedQuery] = field(repr=False)
    """Each with at least one document that answers it; all their documents are there."""


Data = ScoredPairs | Triplets | Groups | JudgedSet
"""Training or evaluation data of any kind."""


def kind_of(data: Data) -> Kind:
    """What kind some data is of."""
    match data:
        case ScoredPairs():
            return Kind.SCORED_PAIRS
        case Triplets():
            return Kind.TRIPLETS if data.negatives else Kind.PAIRS
        case Groups():
            return Kind.GROUPS
        case JudgedSet():
            return Kind.RETRIEVAL


def count_of(data: Data) -> int:
    """Examples in it: pairs, triplets, groups, or judged queries."""
    match data:
        case ScoredPairs():
            return len(data.pairs)
        case Triplets():
            return len(data.triplets)
        case Groups():
            return len(data.groups)
        case JudgedSet():
            return len(data.queries)
