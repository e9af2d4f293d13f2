"""Retrieval as one call of Qdrant's: by vectors, by BM25, or by both, with what each of the two thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from winnow_gateway.collections import CollectionSpec, Similarity
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion, StagePlace
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

    def queries(self, payload: Sequence[str]) -> list[models.QueryRequest]:
        """What to ask the index in one call: the order, with these fields of its documents' payloads.

        By vectors and BM25, two more follow, each of the orders that are fused, without payload: they say what each of
        them thought of a candidate.
        """
        if self.vector is None:
            return [self._one_order(self._bm25_part(self.limit), payload)]
        if self.text is None:
            return [self._one_order(self._dense_part(self.vector, self.limit), payload)]
        depth = max(self.limit, FUSED_DEPTH)
        orders = [self._dense_part(self.vector, depth), self._bm25_part(depth)]
        fusion = models.Rrf(k=self.fusion.k, weights=[self.fusion.dense_weight, self.fusion.lexical_weight])
        fused = models.QueryRequest(
            # The filter belongs into each prefetch: at the root it would only thin out what they found.
            prefetch=[models.Prefetch(**order) for order in orders],
            query=models.RrfQuery(rrf=fusion),
            limit=self.limit + _TIES,
            with_payload=list(payload) or False,
        )
        return [fused, *(self._one_order(order) for order in orders)]

    def candidates(self, answers: Sequence[Sequence[models.ScoredPoint]]) -> list[Candidate]:
        """What the answers to `queries` come to, by falling score, ties by document id."""
        documents = {point.id: read_document(point.payload or {}) for point in answers[0]}
        long = {point.id for point in answers[0] if (point.payload or {}).get("text_is_long", False)}

        def places(points: Sequence[models.ScoredPoint], *, negated: bool = False) -> dict[Any, StagePlace]:
            scores = [(point.id, -point.score if negated else point.score) for point in points]
            # Outside the answer a point has no document to go by; its own id will do as well.
            ordered = sorted(
                scores, key=lambda item: (-item[1], documents[item[0]].id if item[0] in documents else str(item[0]))
            )
            return {id_: StagePlace(score, rank) for rank, (id_, score) in enumerate(ordered, start=1)}

        main = places(answers[0], negated=self.text is None and self._less_is_nearer)
        dense: dict[Any, StagePlace] = {}
        lexical: dict[Any, StagePlace] = {}
        if self.vector is None:
            lexical = main
        elif self.text is None:
            dense = main
        else:
            dense = places(answers[1], negated=self._less_is_nearer)
            lexical = places(answers[2])
        return [
            Candidate(
                documents[id_],
                place.score,
                head_only=id_ in long,
                dense=dense.get(id_),
                lexical=lexical.get(id_),
            )
            for id_, place in list(main.items())[: self.limit]
        ]

    @property
    def _less_is_nearer(self) -> bool:
        return self.spec.embedder.similarity in _LESS_IS_NEARER

    def _dense_part(self, vector: NDArray[np.float32], limit: int) -> dict[str, Any]:
        threshold = self.min_score
        if threshold is not None and self._less_is_nearer:
            threshold = -threshold
        walk = models.SearchParams(hnsw_ef=self.ef, exact=self.exact) if self.ef or self.exact else None
        return {
            "query": vector.tolist(),
            "using": DENSE,
            "limit": limit,
            "filter": qdrant_filter(self.filter),
            "params": walk,
            "score_threshold": threshold,
        }

    def _bm25_part(self, limit: int) -> dict[str, Any]:
        return {"query": self._bm25(), "using": BM25, "limit": limit, "filter": qdrant_filter(self.filter)}

    @staticmethod
    def _one_order(part: Mapping[str, Any], payload: Sequence[str] = ()) -> models.QueryRequest:
        return models.QueryRequest(**part, with_payload=list(payload) or False)

    def _bm25(self) -> models.Document:
        if self.spec.lexical is None:
            raise no_lexical_index(self.spec.name)
        return bm25_text(self.text or "", self.spec.lexical)
