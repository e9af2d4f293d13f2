"""Definitions of collections in their JSON form, and the configuration behind the logic's port."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.definition import Definition
from winnow_index.schema import VectorSchema
from winnow_index.wire import configs, indexes

FORMAT = 1
"""Version of `config.json`."""


class WireConfiguration:
    """A configuration held as the protocol's own message."""

    def __init__(self, message: pb.CollectionConfig) -> None:
        self.message = message
        self.schema: VectorSchema = configs.schema_of(message)

    @property
    def indexing_threshold_kb(self) -> int:
        """Size of unindexed vectors, in KB, past which a graph is built; 0 never builds one."""
        return int(self.message.optimizer_config.indexing_threshold)

    @property
    def deleted_threshold(self) -> float:
        """Share of deleted points past which the graph is built anew."""
        return float(self.message.optimizer_config.deleted_threshold)

    @property
    def vacuum_min_vectors(self) -> int:
        """Collections smaller than this are not built anew for deletions."""
        return int(self.message.optimizer_config.vacuum_min_vector_number)

    @property
    def flush_interval(self) -> float:
        """Seconds after a write at which the engine is flushed."""
        return float(max(1, self.message.optimizer_config.flush_interval_sec))

    def engine_config(self, *, graph_revision: int) -> edge.EdgeConfig:
        """The engine's configuration; another parity of `graph_revision` makes the engine rebuild the graph."""
        return configs.to_engine(self.message, graph_revision=graph_revision)

    def document(self) -> dict[str, Any]:
        """Its JSON form."""
        return configs.to_document(self.message)


def message_of(definition: Definition) -> pb.CollectionConfig:
    """The protocol's message of a definition's configuration."""
    configuration = definition.configuration
    if not isinstance(configuration, WireConfiguration):
        raise TypeError("the configuration was not made by this module")
    return configuration.message


class JsonCodec:
    """The codec of `config.json`."""

    def encode(self, definition: Definition) -> dict[str, Any]:
        """The JSON form."""
        return {
            "format": FORMAT,
            "name": definition.name,
            "created_at": definition.created_at,
            "config": definition.configuration.document(),
            "indexes": {
                field: index.document()
                for field, index in definition.indexes.items()
                if isinstance(index, indexes.IndexRequest)
            },
            "graph": {"revision": definition.graph_revision, "lags": definition.graph_lags},
        }

    def decode(self, document: dict[str, Any]) -> Definition:
        """The definition. Raises ValueError or KeyError if the document is not one."""
        if document["format"] != FORMAT:
            raise ValueError(f"config.json has format {document['format']}, this version reads {FORMAT}")
        return Definition(
            name=document["name"],
            configuration=WireConfiguration(configs.from_document(document["config"])),
            indexes={field: indexes.from_document(index) for field, index in document["indexes"].items()},
            created_at=document["created_at"],
            graph_revision=document["graph"]["revision"],
            graph_lags=document["graph"]["lags"],
        )
