"""What a collection is, apart from its points: configuration, payload indexes, and the state of its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import qdrant_edge as edge

from winnow_index.schema import VectorSchema


class PayloadIndex(Protocol):
    """An index on a field of the payload."""

    def engine_schema(self) -> Any:
        """What the engine takes to create it."""

    @property
    def engine_type(self) -> edge.PayloadSchemaType:
        """Its type as the engine tells it."""

    @property
    def can_order(self) -> bool:
        """Whether points can be ordered by it."""

    @property
    def can_count(self) -> bool:
        """Whether its values can be counted."""

    @property
    def can_score(self) -> bool:
        """Whether texts can be ranked by it."""


class Configuration(Protocol):
    """A collection's configuration, whatever form it travels in."""

    @property
    def schema(self) -> VectorSchema:
        """What requests are checked against."""

    @property
    def indexing_threshold_kb(self) -> int:
        """Size of unindexed vectors, in KB, past which a graph is built; 0 never builds one."""

    @property
    def deleted_threshold(self) -> float:
        """Share of deleted points past which the graph is built anew."""

    @property
    def vacuum_min_vectors(self) -> int:
        """Collections smaller than this are not built anew for deletions."""

    @property
    def flush_interval(self) -> float:
        """Seconds after a write at which the engine is flushed."""

    def engine_config(self, *, graph_revision: int) -> edge.EdgeConfig:
        """The engine's configuration; another parity of `graph_revision` makes the engine rebuild the graph."""

    def document(self) -> dict[str, Any]:
        """Its JSON form."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Everything that `config.json` keeps."""

    name: str
    configuration: Configuration
    indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)
    created_at: float
    """Seconds since the epoch."""
    graph_revision: int = 0
    """How often the graph has been built from nothing; its parity is part of the engine's configuration."""
    graph_lags: bool = False
    """Whether a payload index or a setting is newer than the graph. A filtered walk over such a graph loses results."""


class DefinitionCodec(Protocol):
    """Turns definitions into JSON and back."""

    def encode(self, definition: Definition) -> dict[str, Any]:
        """The JSON form."""

    def decode(self, document: dict[str, Any]) -> Definition:
        """The definition. Raises ValueError or KeyError if the document is not one."""
