"""What a collection holds, as far as requests have to be checked against it. Knows neither gRPC nor the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DenseField:
    """A dense vector that points may carry."""

    size: int
    """Its dimension."""
    multi: bool = False
    """Whether a point carries several of them (late interaction)."""


@dataclass(frozen=True)
class VectorSchema:
    """The vectors of a collection by name; the default vector's name is empty."""

    dense: Mapping[str, DenseField] = field(default_factory=dict)
    sparse: frozenset[str] = frozenset()
    weighed: frozenset[str] = frozenset()
    """Of the sparse ones, those whose entries the index weighs by inverse document frequency."""

    def names(self) -> list[str]:
        """All names, dense first."""
        return [*self.dense, *sorted(self.sparse)]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for. Past a limit is INVALID_ARGUMENT, never a cut."""

    max_limit: int = 100_000
    """Most points that one query, scroll or page may ask for, offset included."""
    max_batch: int = 10_000
    """Most points in one write, ids in one request, or queries in one batch."""
    max_payload_bytes: int = 1024 * 1024
    """Largest payload of one point, in bytes as it travels."""
    max_vectors: int = 1024
    """Most vectors in one multivector."""
    max_dimension: int = 65_536
    """Largest dimension of a dense vector."""
