"""A loaded bi-encoder that many callers share: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from winnow_inference.hosting import HostedModel
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.scheduling.observing import Batch
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.sequences import Matrix
from winnow_inference.truncation import Cut, TextTruncation


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of some texts, and what they cost."""

    vectors: Matrix
    """Float32 [texts, dimensions], in the order of the texts."""
    token_count: int
    """Tokens that the model read, prompts and special tokens included."""
    cuts: list[Cut]
    """The texts that were cut."""
    queue_micros: int
    """From the end of tokenization until the first batch began."""
    tokenize_micros: int
    """Turning text into tokens."""
    inference_micros: int
    """Model time of the batches, shared ones counted whole."""
    batches: list[Batch]
    """Those batches."""


class BiEncoder(HostedModel[BiEncoderFacts]):
    """A bi-encoder that many callers share."""

    async def embed(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        truncation: TextTruncation = TextTruncation.END,
        dimensions: int = 0,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        wait_for_room: bool = False,
    ) -> Embedded:
        """Vectors of texts, as queries or as passages.

        `dimensions` keeps only the first components, brought back to length 1 if the model normalises; the caller has
        made sure that the model was trained for it. Faults: those of `Runner.stream` and `TextTokenizer.texts`.
        """
        prompt = self.facts.query_prompt if query else self.facts.passage_prompt
        with nullcontext() if wait_for_room else self._expecting(texts, prompt, priority):
            tokenized = await self._tokenizer.texts(texts, prompt=prompt, truncation=truncation)
        answer = await self._runner.run(
            tokenized.sequences, priority=priority, deadline=deadline, wait_for_room=wait_for_room
        )
        return Embedded(
            vectors=shortened(answer.rows, dimensions, normalized=self.facts.normalized) if dimensions else answer.rows,
            token_count=tokenized.token_count,
            cuts=tokenized.cuts,
            queue_micros=answer.queue_micros,
            tokenize_micros=tokenized.micros,
            inference_micros=answer.inference_micros,
            batches=answer.batches,
        )

    def _expecting(self, texts: Sequence[str], prompt: str, priority: Priority) -> AbstractContextManager[None]:
        expected = self._tokenizer.expected_tokens(len(prompt) + len(text) for text in texts)
        wait = self._tokenizer.expected_wait_seconds(texts)
        return self._runner.expecting(priority, expected, wait_seconds=wait)

    async def count_tokens(self, texts: Sequence[str], *, query: bool) -> list[int]:
        """Tokens of each text before any cut, prompt and special tokens included."""
        return await self._tokenizer.counts(
            texts, prompt=self.facts.query_prompt if query else self.facts.passage_prompt
        )


def shortened(vectors: Matrix, dimensions: int, *, normalized: bool) -> Matrix:
    """The first components of each vector, of length 1 again if asked; a zero vector stays one."""
    kept = vectors[:, :dimensions]
    if not normalized:
        return kept
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    result: Matrix = (kept / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return result
