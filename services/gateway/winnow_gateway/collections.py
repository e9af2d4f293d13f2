"""Collections, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from winnow_gateway.placements import stored_name


class Similarity(Enum):
    """How vectors are compared."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


class MetadataType(Enum):
    """What the values of a metadata field are."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"


class IndexState(Enum):
    """What the index is doing for a collection."""

    READY = "ready"
    BUILDING = "building"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MetadataField:
    """A metadata field that is indexed for filtering."""

    key: str
    type: MetadataType


@dataclass(frozen=True, slots=True)
class HnswConfig:
    """How the HNSW graph is built: edges per node, and candidates considered per inserted node."""

    m: int = 16
    ef_construct: int = 128


@dataclass(frozen=True, slots=True)
class EmbedderModel:
    """The bi-encoder that a collection is bound to."""

    id: str
    fingerprint: str
    dimension: int
    similarity: Similarity


@dataclass(frozen=True, slots=True)
class LexicalConfig:
    """How documents are indexed for BM25."""

    language: str = "english"
    """Whose stop words and word endings are taken off, one of LANGUAGES; "none": nothing is."""
    average_words: int = 128
    """Words of a usual document, stop words left out. Chosen on judged sets: docs/decisions/0011."""


NO_LANGUAGE = "none"
"""Takes nothing off."""
LANGUAGES = frozenset(
    (
        *("arabic", "azerbaijani", "basque", "bengali", "catalan", "chinese", "danish", "dutch", "english", "finnish"),
        *("french", "german", "greek", "hebrew", "hinglish", "hungarian", "indonesian", "italian", "japanese"),
        *("kazakh", "nepali", "norwegian", "portuguese", "romanian", "russian", "slovene", "spanish", "swedish"),
        *("tajik", "turkish"),
    )
)
"""Languages whose stop words the index knows."""


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is made from."""

    name: str
    embedder: EmbedderModel
    description: str = ""
    metadata_fields: Sequence[MetadataField] = ()
    hnsw: HnswConfig = HnswConfig()
    lexical: LexicalConfig | None = None
    """None: it has vectors alone, as those made before there was BM25."""
    revision: str = ""
    """Tells apart the collections of the index that hold the documents under one model and another; "": the first."""

    @property
    def stored_as(self) -> str:
        """Its name in the index."""
        return stored_name(self.name, self.revision)


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it stands."""

    spec: CollectionSpec
    created: datetime
    document_count: int
    indexed_vector_count: int
    index_state: IndexState
    unindexed: Sequence[MetadataField] = ()
    """Metadata fields that it was to index, and does not, for its maker was killed. They are none of its spec's."""
