"""What a collection was made from, as it is kept in the index beside the collection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from winnow_gateway.collections import (
    CollectionSpec,
    EmbedderModel,
    HnswConfig,
    LexicalConfig,
    MetadataField,
    MetadataType,
    Similarity,
)
from winnow_gateway.placements import split_stored

KEY = "winnow"
"""Key of our part in the collection's metadata; a collection without it is not ours."""


_DENSE_ONLY, _WITH_LEXICAL = 1, 2
"""Versions of our part. A gateway that knows nothing of BM25 would write documents without it; to that gateway a
collection that has BM25 is not ours."""


def write_spec(spec: CollectionSpec, *, created: datetime) -> dict[str, Any]:
    """The metadata of a collection."""
    lexical = {"lexical": _write_lexical(spec.lexical)} if spec.lexical else {}
    return {
        KEY: {
            "version": _WITH_LEXICAL if lexical else _DENSE_ONLY,
            "created": created.isoformat(),
            "description": spec.description,
            "embedder": {
                "id": spec.embedder.id,
                "fingerprint": spec.embedder.fingerprint,
                "dimension": spec.embedder.dimension,
                "similarity": spec.embedder.similarity.value,
            },
            "metadata_fields": [{"key": field.key, "type": field.type.value} for field in spec.metadata_fields],
            "hnsw": {"m": spec.hnsw.m, "ef_construct": spec.hnsw.ef_construct},
            **lexical,
        }
    }


def read_spec(stored: str, metadata: Mapping[str, Any]) -> tuple[CollectionSpec, datetime] | None:
    """The inverse of `write_spec`, of what is stored under a name, and when the collection was made; None if the
    collection is not ours."""
    ours = metadata.get(KEY)
    if not isinstance(ours, Mapping) or ours.get("version") not in (_DENSE_ONLY, _WITH_LEXICAL):
        return None
    embedder = ours["embedder"]
    name, revision = split_stored(stored)
    spec = CollectionSpec(
        name=name,
        revision=revision,
        description=ours["description"],
        embedder=EmbedderModel(
            id=embedder["id"],
            fingerprint=embedder["fingerprint"],
            dimension=int(embedder["dimension"]),
            similarity=Similarity(embedder["similarity"]),
        ),
        metadata_fields=tuple(
            MetadataField(field["key"], MetadataType(field["type"])) for field in ours["metadata_fields"]
        ),
        hnsw=HnswConfig(m=int(ours["hnsw"]["m"]), ef_construct=int(ours["hnsw"]["ef_construct"])),
        lexical=_read_lexical(ours["lexical"]) if "lexical" in ours else None,
    )
    return spec, datetime.fromisoformat(ours["created"])


def _write_lexical(lexical: LexicalConfig) -> dict[str, Any]:
    return {"language": lexical.language, "average_words": lexical.average_words}


def _read_lexical(ours: Mapping[str, Any]) -> LexicalConfig:
    return LexicalConfig(language=ours["language"], average_words=int(ours["average_words"]))
