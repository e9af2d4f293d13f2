"""Some sequences and what the model makes of them in float32: what every other way of computing it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from winnow_inference.engines.base import Engine
from winnow_inference.models.facts import BiEncoderFacts, ModelFacts
from winnow_inference.parity import Parity, compare_scores, compare_vectors
from winnow_inference.sample_texts import pairs, paragraphs
from winnow_inference.sequences import Matrix, TokenSequence
from winnow_inference.tokenization import TextTokenizer

_TEXTS = 64
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Reference:
    """Sequences and their results."""

    sequences: Sequence[TokenSequence]
    """Of several lengths, in no order."""
    rows: Matrix
    """Float32 [sequences, width]."""

    def save(self, file: Path) -> None:
        """Writes it to a file (`.npz`)."""
        np.savez(
            file,
            ids=np.concatenate([one.ids for one in self.sequences]),
            segments=np.concatenate([one.segments for one in self.sequences]),
            lengths=np.array([len(one) for one in self.sequences]),
            rows=self.rows,
        )

    @classmethod
    def load(cls, file: Path) -> Reference:
        """Reads what `save` wrote."""
        with np.load(file, allow_pickle=False) as stored:
            ends = np.cumsum(stored["lengths"])[:-1]
            sequences = [
                TokenSequence(ids, segments)
                for ids, segments in zip(np.split(stored["ids"], ends), np.split(stored["segments"], ends), strict=True)
            ]
            return cls(sequences, stored["rows"])


def sequences_of(facts: ModelFacts, tokenizer: TextTokenizer, texts: list[str]) -> list[TokenSequence]:
    """Texts as the model would get them: passages and queries, or pairs."""
    queries, passages = pairs(texts)
    if isinstance(facts, BiEncoderFacts):
        half = len(texts) // 2
        return [
            *tokenizer.tokenize_texts(passages[:half], prompt=facts.passage_prompt).sequences,
            *tokenizer.tokenize_texts(queries[half:], prompt=facts.query_prompt).sequences,
        ]
    return tokenizer.tokenize_pairs(queries, passages).sequences


def make_reference(facts: ModelFacts, tokenizer: TextTokenizer, engine: Engine) -> Reference:
    """The reference of a model, computed by an engine in float32."""
    sequences = sequences_of(facts, tokenizer, paragraphs(_TEXTS))
    return Reference(sequences, _rows(engine, sequences))


def parity(facts: ModelFacts, reference: Reference, engine: Engine) -> Parity:
    """How close an engine comes to it, in batches as they come."""
    rows = _rows(engine, reference.sequences)
    if isinstance(facts, BiEncoderFacts):
        return compare_vectors(rows, reference.rows)
    return compare_scores(rows, reference.rows)


def _rows(engine: Engine, sequences: Sequence[TokenSequence]) -> Matrix:
    batches = [sequences[start : start + _BATCH] for start in range(0, len(sequences), _BATCH)]
    return np.concatenate([engine.run(engine.prepare(batch), 0) for batch in batches])
