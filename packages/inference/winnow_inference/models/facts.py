"""What is known of a loaded model, apart from its weights: plain values, which a cache can keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How a model wants its batches filled up to a rectangle."""

    token_id: int
    """Id of the padding token."""
    segment_id: int
    """Segment of the padding token."""
    left: bool
    """Padding goes before the text (causal models), not after it."""
    segments: bool
    """The model takes `token_type_ids`."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What bi-encoders and cross-encoders have in common."""

    fingerprint: str
    """Hash of everything that decides its results."""
    max_token_count: int
    """Tokens that it reads at most, special tokens included."""
    padding: Padding
    """How its batches are filled up."""

    @property
    def width(self) -> int:
        """Numbers that it gives for a sequence."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BiEncoderFacts(ModelFacts):
    """A bi-encoder's."""

    dimension: int
    """Components per vector."""
    query_prompt: str
    """Put before every query."""
    passage_prompt: str
    """Put before every passage."""
    prompt_is_pooled: bool
    """The prompt's tokens take part in pooling."""
    similarity: Similarity
    """How its vectors are compared."""
    normalized: bool
    """Its vectors have length 1."""

    @property
    def width(self) -> int:
        """The vector's components."""
        return self.dimension


@dataclass(frozen=True, kw_only=True)
class CrossEncoderFacts(ModelFacts):
    """A cross-encoder's."""

    labels: tuple[str, ...]
    """Names of its outputs, in order."""
    activation_name: str
    """The function over its raw outputs: "sigmoid", "identity", "softmax"."""
    prompt: str
    """Put before the first text of every pair; mostly empty."""

    @property
    def width(self) -> int:
        """The labels."""
        return len(self.labels)


FactsT = TypeVar("FactsT", bound=ModelFacts)
"""Either kind's facts."""
