"""How a cross-encoder's order is best mixed with the first stage's, as stored with the model in `winnow.json`.

It was learned on judgements and may be learned anew without touching the model, so it is no part of the fingerprint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from winnow_inference.models.weights import read_json
from winnow_rpc.faults import FailedPrecondition

FILE = "winnow.json"
"""The file in the model's folder: `{"mixing": {"k": 10, "retrieval_weight": 1.0, "rerank_weight": 1.0}}`."""


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Weighted reciprocal rank fusion of two orders: sum of weight / (k + rank), ranks from 1."""

    k: float
    """The constant k, at least 1."""
    retrieval_weight: float
    """Weight of the retrieval order, 0 or more."""
    rerank_weight: float
    """Weight of the reranked order, above 0."""


def read_mixing(folder: Path) -> Mixing | None:
    """The mixing stored in a model's folder; None if none is. Raises FailedPrecondition if it is malformed."""
    path = folder / FILE
    if not path.is_file():
        return None
    stored = read_json(path)
    if "mixing" not in stored:
        return None
    mixing = stored["mixing"]
    expected = {"k", "retrieval_weight", "rerank_weight"}
    if not isinstance(mixing, dict) or set(mixing) != expected:
        raise _malformed(folder, f"mixing must hold exactly {', '.join(sorted(expected))}")
    for name, least in (("k", 1.0), ("retrieval_weight", 0.0), ("rerank_weight", 0.0)):
        value = mixing[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
            raise _malformed(folder, f"mixing.{name} must be a number of at least {least:g}, got {value!r}")
    if mixing["rerank_weight"] == 0:
        raise _malformed(folder, "mixing.rerank_weight must be above 0")
    return Mixing(**{name: float(mixing[name]) for name in expected})


def _malformed(folder: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{FILE} in {folder} is malformed: {why}", reason="MODEL_UNREADABLE", metadata={"folder": str(folder)}
    )
