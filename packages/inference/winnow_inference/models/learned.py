"""What was learned of a cross-encoder's scores on judgements, as stored with the model in `winnow.json`.

    {
      "version": 2,
      "mixing": {"k": 10, "retrieval_weight": 1.0, "rerank_weight": 1.0},
      "score_mixings": {"hybrid": {"rerank": 0.3, "dense": 0.4, …}, "dense": {…}, "lexical": {…}},
      "calibration": {"method": "platt", "scale": 0.8, "bias": -1.3},
      "learned": {"date": "…", "model_fingerprint": "…", …}
    }

Every part may be missing. `mixing` is of ranks, `score_mixings` of scores, by what the first stage looked at; what each
weight is the weight of, the contract says (`ScoreMixing` of winnow.reranker.v1). `learned` is a record for people, but
for the fingerprint. The older form has `mixing` alone and no version. All of it may be learned anew without touching
the model, so it is no part of the fingerprint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from winnow_inference.models.weights import read_json
from winnow_rpc.faults import FailedPrecondition

FILE = "winnow.json"
"""The file in the model's folder."""

# Scores are float32: nearer to 0 or 1 than this a probability says nothing more.
_LEAST_PROBABILITY = 1e-7

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Probability = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Mixing(_Part):
    """Weighted reciprocal rank fusion of two orders: sum of weight / (k + rank), ranks from 1."""

    k: _Finite = Field(ge=1)
    """The constant k, at least 1."""
    retrieval_weight: _Finite = Field(ge=0)
    """Weight of the retrieval order, 0 or more."""
    rerank_weight: _Finite = Field(gt=0)
    """Weight of the reranked order, above 0."""


class ScoreMixing(_Part):
    """Weights of a linear mixing of scores; the features are those of the contract's `ScoreMixing`."""

    rerank: _Finite = Field(default=0.0, ge=0)
    rerank_sigmoid: _Finite = Field(default=0.0, ge=0)
    dense: _Finite = 0.0
    lexical: _Finite = 0.0
    retrieval_rank: _Finite = 0.0
    dense_absent: _Finite = 0.0
    lexical_absent: _Finite = 0.0

    @model_validator(mode="after")
    def _check_rerank(self) -> Self:
        if not self.rerank + self.rerank_sigmoid > 0:
            raise ValueError("rerank or rerank_sigmoid must be above 0")
        return self


class ScoreMixings(_Part):
    """Mixings of scores by what the first stage looked at; None: not learned."""

    hybrid: ScoreMixing | None = None
    dense: ScoreMixing | None = None
    lexical: ScoreMixing | None = None


class Platt(_Part):
    """Platt scaling: the log-odds of relevance are scale × score + bias. With no bias it is temperature scaling."""

    method: Literal["platt"] = "platt"
    scale: _Finite = Field(gt=0)
    """1 / temperature."""
    bias: _Finite = 0.0

    def probability(self, scores: ArrayLike, activation: str) -> NDArray[np.float64]:
        """Probabilities of scores of the model whose activation has that name; of the same shape."""
        return _sigmoid(self.scale * log_odds(scores, activation) + self.bias)


class Isotonic(_Part):
    """Isotonic regression: the log-odds of relevance are straight lines between knots, and level beyond them."""

    method: Literal["isotonic"] = "isotonic"
    scores: tuple[_Finite, ...] = Field(min_length=2, max_length=1000, strict=False)
    """The knots, rising."""
    probabilities: tuple[_Probability, ...] = Field(min_length=2, max_length=1000, strict=False)
    """The probability at each knot; never falls."""

    @model_validator(mode="after")
    def _check_knots(self) -> Self:
        if len(self.scores) != len(self.probabilities):
            raise ValueError("scores and probabilities must be as many")
        if not all(left < right for left, right in pairwise(self.scores)):
            raise ValueError("scores must rise")
        if not all(left <= right for left, right in pairwise(self.probabilities)):
            raise ValueError("probabilities must never fall")
        return self

    def probability(self, scores: ArrayLike, activation: str) -> NDArray[np.float64]:
        """Probabilities of scores of the model whose activation has that name; of the same shape."""
        at_knots = log_odds(self.probabilities, "sigmoid")
        return _sigmoid(np.interp(log_odds(scores, activation), self.scores, at_knots))


Calibration = Platt | Isotonic
"""From scores to probabilities. Scores are log-odds where the model's activation is the sigmoid, else as they are."""


class Learned(_Part):
    """All of it."""

    version: Literal[2] = 2
    mixing: Mixing | None = None
    """How ranks are best mixed with the first stage's; None: not at all."""
    score_mixings: ScoreMixings = ScoreMixings()
    """How scores are best mixed with the first stage's."""
    calibration: Platt | Isotonic | None = Field(default=None, discriminator="method")
    """How scores become probabilities; None: they do not."""
    learned: Mapping[str, Any] = Field(default_factory=dict)
    """When, how and on what."""

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model that it was learned with; empty if that is not said."""
        return str(self.learned.get("model_fingerprint", ""))


NOTHING_LEARNED = Learned()
"""What a model has that comes without the file."""


def log_odds(scores: ArrayLike, activation: str) -> NDArray[np.float64]:
    """Scores on the scale that calibration knows: log-odds where the activation is the sigmoid, else as they are."""
    values = np.asarray(scores, dtype=np.float64)
    if activation != "sigmoid":
        return values
    clipped = np.clip(values, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.log(clipped) - np.log1p(-clipped)


def read_learned(folder: Path) -> Learned:
    """What is stored in a model's folder. Raises FailedPrecondition, one sentence, if it is malformed."""
    path = folder / FILE
    if not path.is_file():
        return NOTHING_LEARNED
    stored = read_json(path)
    try:
        return Learned.model_validate(stored)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ")
        raise FailedPrecondition(
            f"{FILE} in {folder} is malformed: {where + ': ' if where else ''}{why}",
            reason="MODEL_UNREADABLE",
            metadata={"folder": str(folder), "field": where},
        ) from error


def write_learned(folder: Path, learned: Learned) -> None:
    """Stores it in a model's folder, at once or not at all."""
    path = folder / FILE
    partial = path.with_name(f".{FILE}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(learned.model_dump(mode="json", exclude_none=True), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp of a large number would warn.
    return 0.5 * (1 + np.tanh(0.5 * values))
