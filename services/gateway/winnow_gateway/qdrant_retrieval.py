"""Retrieval as one query of Qdrant's: by vectors, by BM25, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from winnow_gateway.collections import CollectionSpec, Similarity
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion
from winnow_gateway.ports import Candidate, no_lexical_index
from winnow_gateway.qdrant_filters import qdrant_filter
from winnow_gateway.qdrant_points import BM25, DENSE, bm25_text, read_document

FUSED_DEPTH = 100
"""How far down each order is read for fusion, at least: a short answer has the same first hits as a long one."""

# Fused, two documents that one order each found may well have the same score, and Qdrant gives such in any order,
# another each time. So many more than asked for are read, and the cut is made here, by id. More are rarely equal.
_TIES = 4

_LESS_IS_NEARER = frozenset((Similarity.EUCLIDEAN, Similarity.MANHATTAN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """What is looked for in a collection."""

    spec: CollectionSpec
    vector: NDArray[np.float32] | None
    text: str | None
    fusion: Fusion
    limit: int
    filter: Filter
    min_score: float | None
    ef: int | None
    exact: bool

    def query(self) -> dict[str, Any]:
        """Arguments of the client's `query_points`."""
        if self.vector is None:
            return self._among({"query": self._bm25(), "using": BM25, "limit": self.limit}, key="query_filter")
        if self.text is None:
            dense = self._dense(self.vector, limit=self.limit, params="search_params")
            return self._among(dense, key="query_filter")
        depth = max(self.limit, FUSED_DEPTH)
        # The filter belongs into each prefetch: at the root it would only thin out what they found.
        prefetches = [
            models.Prefetch(**self._among(part, key="filter"))
            for part in (
                self._dense(self.vector, limit=depth, params="params"),
                {"query": self._bm25(), "using": BM25, "limit": depth},
            )
        ]
        fusion = models.Rrf(k=self.fusion.k, weights=[self.fusion.dense_weight, self.fusion.lexical_weight])
        return {"prefetch": prefetches, "query": models.RrfQuery(rrf=fusion), "limit": self.limit + _TIES}

    def candidates(self, points: Sequence[models.ScoredPoint]) -> list[Candidate]:
        """The query's answer, by falling score, ties by document id."""
        negated = self.text is None and self._less_is_nearer
        found = [
            Candidate(
                read_document(point.payload or {}),
                -point.score if negated else point.score,
                head_only=(point.payload or {}).get("text_is_long", False),
            )
            for point in points
        ]
        return sorted(found, key=lambda candidate: (-candidate.score, candidate.document.id))[: self.limit]

    @property
    def _less_is_nearer(self) -> bool:
        return self.spec.embedder.similarity in _LESS_IS_NEARER

    def _dense(self, vector: NDArray[np.float32], *, limit: int, params: str) -> dict[str, Any]:
        threshold = self.min_score
        if threshold is not None and self._less_is_nearer:
            threshold = -threshold
        walk = models.SearchParams(hnsw_ef=self.ef, exact=self.exact) if self.ef or self.exact else None
        return {"query": vector.tolist(), "using": DENSE, "limit": limit, params: walk, "score_threshold": threshold}

    def _bm25(self) -> models.Document:
        if self.spec.lexical is None:
            raise no_lexical_index(self.spec.name)
        return bm25_text(self.text or "", self.spec.lexical)

    def _among(self, part: dict[str, Any], *, key: str) -> dict[str, Any]:
        return {**part, key: qdrant_filter(self.filter)}
