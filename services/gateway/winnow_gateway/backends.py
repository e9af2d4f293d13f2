"""What searches call, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from winnow_gateway.breaking import CircuitBreaker
from winnow_gateway.catalog import Catalog
from winnow_gateway.costs import CostBook
from winnow_gateway.ports import Embedder, Index, Reranker
from winnow_gateway.reranking import AnytimeReranker


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """What searches call, with the breaker of each and the book of their costs."""

    catalog: Catalog
    embedder: Embedder
    embedder_breakers: Mapping[str, CircuitBreaker]
    """By the name of the backend: `Embedder.backends`."""
    index: Index
    index_breaker: CircuitBreaker
    reranker: Reranker
    anytime: AnytimeReranker
    book: CostBook

    def embedder_breaker(self, fingerprint: str) -> CircuitBreaker:
        """The breaker of what embeds for a model."""
        return self.embedder_breakers[self.embedder.backend(fingerprint)]
