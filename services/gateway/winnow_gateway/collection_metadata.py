"""What a collection was made from, as it is kept in the index beside the collection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from winnow_gateway.collections import (
    CollectionSpec,
    EmbedderModel,
    HnswConfig,
    MetadataField,
    MetadataType,
    Similarity,
)

KEY = "winnow"
"""Key of our part in the collection's metadata; a collection without it is not ours."""


def write_spec(spec: CollectionSpec, *, created: datetime) -> dict[str, Any]:
    """The metadata of a collection."""
    return {
        KEY: {
            "version": 1,
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
        }
    }


def read_spec(name: str, metadata: Mapping[str, Any]) -> tuple[CollectionSpec, datetime] | None:
    """The inverse of `write_spec`, and when the collection was made; None if the collection is not ours."""
    ours = metadata.get(KEY)
    if not isinstance(ours, Mapping) or ours.get("version") != 1:
        return None
    embedder = ours["embedder"]
    spec = CollectionSpec(
        name=name,
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
    )
    return spec, datetime.fromisoformat(ours["created"])
