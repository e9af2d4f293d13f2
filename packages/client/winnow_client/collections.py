"""Collections: documents under one bi-encoder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Similarity(StrEnum):
    """How vectors of a collection are compared."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    COSINE = "cosine"
    """Cosine of the angle, -1 to 1."""
    DOT = "dot"
    """Dot product, any value."""
    EUCLIDEAN = "euclidean"
    """Euclidean distance: less is nearer."""
    MANHATTAN = "manhattan"
    """Manhattan distance: less is nearer."""


class MetadataType(StrEnum):
    """What the values of a metadata field are."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    KEYWORD = "keyword"
    """Strings that match as a whole."""
    INTEGER = "integer"
    """Whole numbers, -2^53 to 2^53."""
    FLOAT = "float"
    """Numbers."""
    BOOL = "bool"
    """True and false."""
    DATETIME = "datetime"
    """Points in time, as RFC 3339 strings."""


class IndexState(StrEnum):
    """What the index is doing for a collection."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    READY = "ready"
    """Every vector that should be in the HNSW graph is in it."""
    BUILDING = "building"
    """The graph is being built; searches are answered meanwhile."""
    FAILED = "failed"
    """The index reports a failure for this collection."""


@dataclass(frozen=True)
class MetadataField:
    """A metadata field that is indexed for filtering."""

    key: str
    """Path of the field inside a document's metadata, keys joined by dots: "author.name"."""
    type: MetadataType
    """What its values are."""


@dataclass(frozen=True, kw_only=True)
class HnswConfig:
    """How the HNSW graph is built."""

    m: int = 0
    """Edges per node, 4 to 128. More: better recall, more memory. 0: the gateway's default."""
    ef_construct: int = 0
    """Candidates considered per inserted node, 4 to 4096. More: better recall, slower building. 0: the default."""


@dataclass(frozen=True, kw_only=True)
class LexicalConfig:
    """How documents are indexed for BM25: title and text together, whole."""

    language: str = ""
    """The language whose stop words and word endings are taken off, by its English name: "english", "german"; "none"
    takes nothing off. Empty: English."""
    average_words: int = 0
    """Words of a usual document, 1 to 1,000,000, stop words left out: in longer ones a word counts less. 0: 128."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection: documents under one bi-encoder."""

    name: str
    """Its name."""
    document_count: int
    """Documents in it."""
    indexed_vector_count: int
    """Vectors in the HNSW graph; the others are searched by brute force."""
    index_state: IndexState
    """What the index is doing."""
    embedder_id: str
    """Path or hub id of the bi-encoder that fills it."""
    embedder_fingerprint: str
    """Fingerprint of that bi-encoder; texts embedded by another are refused."""
    dimension: int
    """Components per vector."""
    similarity: Similarity
    """How vectors are compared."""
    metadata_fields: tuple[MetadataField, ...]
    """Metadata fields that are indexed for filtering."""
    hnsw: HnswConfig
    """How its HNSW graph is built."""
    description: str
    """Free text for people."""
    create_time: datetime | None
    """When it was made, in UTC."""
    lexical: LexicalConfig | None
    """How its documents are indexed for BM25; None: it has vectors alone."""


class ReembedPhase(StrEnum):
    """What re-embedding is at."""

    UNKNOWN = "unknown"
    """The gateway said something that this version does not know."""
    EMBEDDING = "embedding"
    """Documents are embedded; searches are answered by the former vectors, and writes go to these."""
    INDEXING = "indexing"
    """All documents are embedded, and the index builds the HNSW graph over the new vectors."""
    SWITCHING = "switching"
    """The last writes are carried over; an ingest waits for its acknowledgements meanwhile."""
    SWITCHED = "switched"
    """The new vectors answer. The former ones stay for searches that have begun with them."""


@dataclass(frozen=True, kw_only=True)
class ReembedProgress:
    """How far re-embedding is."""

    phase: ReembedPhase
    """What it is at."""
    embedded_document_count: int
    """Documents that have a vector of the new model so far, those of an earlier attempt among them."""
    document_count: int
    """Documents in all."""
    embedder_fingerprint: str
    """Fingerprint of the model that embeds now."""
    former_embedder_fingerprint: str
    """Fingerprint of the model that the collection was bound to when the call began."""
    complete: bool
    """True in the last one: there is nothing left to do."""
