"""How close results are to the reference's, and whether that is close enough. Pure arithmetic.

The reference is the model as its library computes it in float32. Vectors are compared by their cosine, scores by the
order that they give (Spearman's rank correlation), since that is what either is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from winnow_inference.sequences import Matrix

Measure = Literal["cosine", "spearman"]

LOSSLESS = {"cosine": 0.9995, "spearman": 0.999}
"""What an engine must reach that claims to change nothing but rounding: the least cosine, the least correlation."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What a comparison found."""

    measure: Measure
    """What was compared."""
    mean: float
    """On average: over texts (cosine) or labels (Spearman)."""
    least: float
    """At worst."""
    count: int
    """Texts or pairs that were compared."""

    def __str__(self) -> str:
        name = "cosine" if self.measure == "cosine" else "Spearman correlation"
        return f"{name} to float32 {self.mean:.4f} on average, {self.least:.4f} at worst, over {self.count} texts"


def compare_vectors(found: Matrix, reference: Matrix) -> Parity:
    """Compares vectors [texts, dimension] row by row. Where one is not of numbers, nothing is close: -1."""
    if not np.isfinite(found).all():
        return Parity(measure="cosine", mean=-1.0, least=-1.0, count=len(found))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = np.einsum("ij,ij->i", found, reference) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return Parity(measure="cosine", mean=float(cosines.mean()), least=float(cosines.min()), count=len(found))


def compare_scores(found: Matrix, reference: Matrix) -> Parity:
    """Compares the order that scores [pairs, labels] give, label by label. Where one is no number, nothing is close."""
    if not np.isfinite(found).all():
        return Parity(measure="spearman", mean=-1.0, least=-1.0, count=len(found))
    correlations = [spearman(found[:, label], reference[:, label]) for label in range(reference.shape[1])]
    return Parity(measure="spearman", mean=float(np.mean(correlations)), least=min(correlations), count=len(found))


def spearman(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 1 if neither side tells anything apart."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a @ b) / size


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks
