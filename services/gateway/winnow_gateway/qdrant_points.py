"""Documents as Qdrant's points: their vectors and their payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from qdrant_client import models

from winnow_gateway.collections import NO_LANGUAGE, CollectionSpec, LexicalConfig, Similarity
from winnow_gateway.documents import Document, DocumentView, StoredDocument, point_id, split_text
from winnow_gateway.ports import Point
from winnow_gateway.qdrant_filters import METADATA

DENSE = "dense"
"""Name of the bi-encoder's vector in every collection."""
BM25 = "bm25"
"""Name of the sparse vector that the index makes of a document's text, in collections that have one."""

_DISTANCES = {
    Similarity.COSINE: models.Distance.COSINE,
    Similarity.DOT: models.Distance.DOT,
    Similarity.EUCLIDEAN: models.Distance.EUCLID,
    Similarity.MANHATTAN: models.Distance.MANHATTAN,
}
_BM25_MODEL = "qdrant/bm25"
# Written without spaces between words.
_UNSPACED = frozenset(("chinese", "japanese"))


def dense_params(spec: CollectionSpec) -> dict[str, models.VectorParams]:
    """The dense vectors of a collection's points."""
    size, distance = spec.embedder.dimension, _DISTANCES[spec.embedder.similarity]
    return {DENSE: models.VectorParams(size=size, distance=distance)}


def sparse_params(spec: CollectionSpec) -> dict[str, models.SparseVectorParams] | None:
    """The sparse vectors of a collection's points; None if there are none."""
    # What is stored is a document's part of BM25; how rare each word is, the index knows when it is asked.
    return {BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)} if spec.lexical else None


def bm25_text(text: str, lexical: LexicalConfig) -> models.Document:
    """A text that the index turns into a BM25 vector itself, so that nobody else needs its tokenizer."""
    options: dict[str, Any] = {"avg_len": float(lexical.average_words)}
    if lexical.language == NO_LANGUAGE:
        options |= {"stemmer": {"type": "none"}, "stopwords": {"languages": [], "custom": []}}
    else:
        options["language"] = lexical.language
    if lexical.language in _UNSPACED:
        options["tokenizer"] = "multilingual"
    return models.Document(text=text, model=_BM25_MODEL, options=options)


def written_points(points: Sequence[Point], spec: CollectionSpec) -> list[models.PointStruct]:
    """Points as they are written, now."""
    now = datetime.now(UTC).isoformat()
    return [
        models.PointStruct(
            id=point_id(point.document.id),
            vector=_vectors(point, spec),
            payload={
                **_payload(point.document),
                "content_hash": point.content_hash,
                "updated": point.updated.isoformat() if point.updated else now,
            },
        )
        for point in points
    ]


def _vectors(point: Point, spec: CollectionSpec) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: point.vector.tolist()}
    if spec.lexical:
        vectors[BM25] = bm25_text(point.document.passage, spec.lexical)
    return vectors


def _payload(document: Document) -> dict[str, Any]:
    head, rest = split_text(document.text)
    payload = {"document_id": document.id, "title": document.title, "text": head, METADATA: dict(document.metadata)}
    # Apart, so that a hundred candidates of a search need not carry a hundred long texts.
    return {**payload, "text_is_long": True, "text_rest": rest} if rest else payload


def read_stored(payload: Mapping[str, Any]) -> StoredDocument:
    """The document of a whole payload, and what is known of it."""
    return StoredDocument(read_document(payload), payload["content_hash"], datetime.fromisoformat(payload["updated"]))


def read_document(payload: Mapping[str, Any]) -> Document:
    """The document of a payload, as far as it was asked for."""
    return Document(
        id=payload["document_id"],
        title=payload.get("title", ""),
        text=payload.get("text", "") + payload.get("text_rest", ""),
        metadata=payload.get(METADATA, {}),
    )


def payload_keys(view: DocumentView) -> list[str]:
    """What of a payload to ask for, the rest of long texts left out."""
    chosen = ["document_id", "title"]
    if view.text:
        chosen += ["text", "text_is_long"]
    if view.metadata:
        chosen.append(METADATA)
    return chosen
