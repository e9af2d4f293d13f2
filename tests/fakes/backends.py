"""An embedder and a reranker in memory, with switches to make them fail.

The embedder hashes words into a small vector, so texts that share words are near; the reranker counts shared ones.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from winnow_gateway.collections import EmbedderModel, Similarity
from winnow_gateway.ordering import Mixing
from winnow_gateway.ports import (
    EmbeddedTexts,
    RerankedBatch,
    RerankerModel,
)
from winnow_rpc.faults import FailedPrecondition, Fault, InvalidArgument, ResourceExhausted

DIMENSION = 64


def embed_words(text: str, salt: str = "") -> NDArray[np.float32]:
    """A unit vector of DIMENSION components, from the words of a text; another one with another salt."""
    vector = np.full(DIMENSION, 1e-3, dtype=np.float32)
    for word in text.lower().split():
        digest = hashlib.blake2b(f"{salt}{word}".encode(), digest_size=4).digest()
        vector[int.from_bytes(digest, "little") % DIMENSION] += 1.0
    return vector / np.linalg.norm(vector)


def _refuse_too_large(words: Sequence[Sequence[str]], limit: int) -> None:
    """As the model services refuse what could never wait, even alone."""
    if (count := sum(map(len, words))) > limit:
        raise ResourceExhausted(
            "the request has too many tokens",
            reason="REQUEST_TOO_LARGE",
            metadata={"token_count": str(count), "max_queued_tokens": str(limit)},
        )


class FakeEmbedder:
    """Implements ports.Embedder."""

    def __init__(self, fingerprint: str = "f" * 64, *, salt: str = "") -> None:
        self._salt = salt
        self.served = EmbedderModel("fake-bi-encoder", fingerprint, DIMENSION, Similarity.COSINE)
        self.max_words = 100
        self.failures: list[Fault | None] = []
        """Raised by the next calls that embed, one each; None lets one pass."""
        self.max_call_words = 10**9
        """A call with more is refused as too large."""
        self.refused_words: set[str] = set()
        """A passage with one of these makes its whole call fail."""
        self.away: Fault | None = None
        """Raised by every call while set."""
        self.embedded_passages: list[str] = []
        self.delay = 0.0
        self.queries = 0
        """Calls of `embed_query`."""

    @property
    def backends(self) -> Sequence[str]:
        return ["embedder"]

    def backend(self, fingerprint: str) -> str:
        return "embedder"

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> EmbedderModel:
        if self.away:
            raise self.away
        return self.served

    async def embed_query(self, query: str, *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        self.queries += 1
        return await self._embed([query], fingerprint)

    async def embed_passages(
        self, passages: Sequence[str], *, fingerprint: str, timeout: float | None = None
    ) -> EmbeddedTexts:
        embedded = await self._embed(passages, fingerprint)
        self.embedded_passages += passages
        return embedded

    async def _embed(self, texts: Sequence[str], fingerprint: str) -> EmbeddedTexts:
        await asyncio.sleep(self.delay)
        if self.away:
            raise self.away
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        if fingerprint != self.served.fingerprint:
            raise FailedPrecondition("another model is served")
        words = [text.split() for text in texts]
        _refuse_too_large(words, self.max_call_words)
        for position, each in enumerate(words):
            if self.refused_words.intersection(each):
                raise InvalidArgument("the text holds a word that is refused", field=f"texts[{position}]")
        return EmbeddedTexts(
            vectors=np.stack([embed_words(" ".join(each[: self.max_words]), self._salt) for each in words]),
            dropped_token_counts={i: len(w) - self.max_words for i, w in enumerate(words) if len(w) > self.max_words},
            token_count=sum(len(w) for w in words),
            inference_micros=10,
            model_fingerprint=self.served.fingerprint,
        )


class FakeReranker:
    """Implements ports.Reranker: the score is the number of query words in the passage, in batches of two.

    The probability, where the served model is calibrated, is 1 - 1 / (1 + score).
    """

    def __init__(self, mixing: Mixing | None = None) -> None:
        self.served = RerankerModel("fake-cross-encoder", "c" * 64, mixing)
        self.failure: Fault | None = None
        """Raised in the place of the batch `fails_at`, and by `model` if that is 0."""
        self.fails_at = 0
        self.passages: list[str] = []
        self.calls = 0
        self.delay = 0.0
        """Seconds that a batch takes."""
        self.scored = 0
        """Passages scored, over all calls."""
        self.max_call_words = 10**9
        """A call with more is refused as too large."""
        self.cancelled = asyncio.Event()
        """Set when a call was given up before its end."""
        self.timeouts: list[float | None] = []
        self.held_up: set[int] = set()
        """Batches that come last, whatever their place."""

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> RerankerModel:
        if self.failure and self.fails_at == 0:
            raise self.failure
        self.require(fingerprint)
        return self.served

    def require(self, fingerprint: str) -> None:
        """Refuses a call for another model; asked once a call."""
        if fingerprint and fingerprint != self.served.fingerprint:
            raise FailedPrecondition("another model is served", reason="MODEL_MISMATCH")

    async def rerank(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", timeout: float | None = None
    ) -> AsyncGenerator[RerankedBatch, None]:
        wanted = set(query.lower().split())
        self.passages = list(passages)
        self.calls += 1
        self.timeouts.append(timeout)
        self.require(fingerprint)
        _refuse_too_large([passage.split() for passage in passages], self.max_call_words)
        batches = range(0, len(passages), 2)
        ended = False
        try:
            for number, start in enumerate(sorted(batches, key=lambda start: (start // 2 in self.held_up, start))):
                await asyncio.sleep(self.delay)
                if self.failure and number >= self.fails_at:
                    ended = True
                    raise self.failure
                scores = {
                    start + i: float(len(wanted.intersection(passage.lower().split())))
                    for i, passage in enumerate(passages[start : start + 2])
                }
                self.scored += len(scores)
                ended = start == batches[-1]
                probabilities = (
                    {i: 1 - 1 / (1 + score) for i, score in scores.items()} if self.served.calibrated else {}
                )
                yield RerankedBatch(
                    scores, probabilities, token_count=7, inference_micros=5, model_fingerprint=self.served.fingerprint
                )
        finally:
            if not ended:
                self.cancelled.set()
