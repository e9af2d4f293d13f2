"""Whether results under load are those that were computed at the start. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow_lab.bench_figures import cosines

Key = tuple[str, str]
"""What a text was for, and the text."""

LEAST_COSINE = 0.999
"""A vector further from the first one of its text is wrong: other batches round otherwise, but not by that much."""
GREATEST_DIFFERENCE = 0.02
"""A score further from the first one of its pair is wrong; scores of the shipped cross-encoder go from 0 to 1."""


class Checker:
    """Keeps the first result of everything and holds later ones to it."""

    def __init__(self) -> None:
        self._vectors: dict[Key, npt.NDArray[np.float32]] = {}
        self._scores: dict[str, npt.NDArray[np.float64]] = {}
        self.begin()

    def begin(self) -> None:
        """Forgets what was counted, not what was kept."""
        self._checked = {"query": 0, "passage": 0, "rerank": 0}
        self._wrong = {"query": 0, "passage": 0, "rerank": 0}
        self._worst_cosine = 1.0
        self._worst_difference = 0.0

    def vectors(self, keys: Sequence[Key], vectors: npt.NDArray[np.float32]) -> None:
        """Keeps the vectors of texts that are new, and checks the others."""
        if len(keys) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(keys)} texts")
        for key, vector in zip(keys, vectors, strict=True):
            first = self._vectors.setdefault(key, vector)
            cosine = float(cosines(vector[None], first[None])[0])
            kind = key[0]
            self._checked[kind] += 1
            # Not a number is wrong, too.
            self._wrong[kind] += not cosine >= LEAST_COSINE
            self._worst_cosine = min(self._worst_cosine, cosine)

    def scores(self, query: str, scores: Sequence[float]) -> None:
        """Keeps the scores of a query that is new, and checks the others: its documents are always the same."""
        given = np.asarray(scores, dtype=np.float64)
        first = self._scores.setdefault(query, given)
        difference = float(np.abs(given - first).max()) if given.shape == first.shape else float("inf")
        self._checked["rerank"] += 1
        self._wrong["rerank"] += not difference <= GREATEST_DIFFERENCE
        self._worst_difference = max(self._worst_difference, difference)

    def report(self) -> dict[str, Any]:
        """How many were checked, how many were wrong, and the worst of them."""
        return {
            "checked": dict(self._checked),
            "wrong": dict(self._wrong),
            "wrong_total": sum(self._wrong.values()),
            "worst_cosine": round(self._worst_cosine, 6),
            "worst_score_difference": round(self._worst_difference, 5),
        }
