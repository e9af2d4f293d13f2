"""BM25 in this process, by the engine's own tokenizer and term weights, so that it is the index's to the last digit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, StopwordsSet

from winnow_rpc.faults import InvalidArgument

Scores = NDArray[np.float64]


class Bm25Index:
    """Texts, and how well each fits a query."""

    def __init__(self, texts: Sequence[str], *, language: str, average_words: int) -> None:
        """`language` "none": no stemmer and no stop words. `average_words`: words of a usual text."""
        self._model = _model(language, average_words=float(average_words))
        vectors = [self._model.embed_document(text) for text in texts]
        counts = [len(vector.indices) for vector in vectors]
        terms = np.array([term for vector in vectors for term in vector.indices], dtype=np.int64)
        weights = np.array([weight for vector in vectors for weight in vector.values])
        texts_of = np.repeat(np.arange(len(texts)), counts)
        by_term = np.argsort(terms, kind="stable")
        self._texts, self._weights = texts_of[by_term], weights[by_term]
        found, starts, lengths = np.unique(terms[by_term], return_index=True, return_counts=True)
        # As Qdrant's modifier IDF has it.
        rarities = np.log((len(texts) - lengths + 0.5) / (lengths + 0.5) + 1)
        self._postings = {
            int(term): (int(start), int(start + length), float(rarity))
            for term, start, length, rarity in zip(found, starts, lengths, rarities, strict=True)
        }
        self._count = len(texts)

    def scores(self, query: str) -> Scores:
        """Of every text; 0 for one that shares no word with the query. Shape [texts]."""
        total = np.zeros(self._count)
        vector = self._model.embed_query(query)
        for term, weight in zip(vector.indices, vector.values, strict=True):
            if term in self._postings:
                start, end, rarity = self._postings[term]
                # A text has a term once.
                total[self._texts[start:end]] += weight * rarity * self._weights[start:end]
        return total


def _model(language: str, *, average_words: float) -> Bm25:
    if language == "none":
        return Bm25(Bm25Config(avg_len=average_words, stemmer=DisabledStemmer(), stopwords=StopwordsSet(set(), set())))
    try:
        return Bm25(Bm25Config(language=language, avg_len=average_words))
    except ValueError as error:
        raise InvalidArgument(f"BM25 knows no language {language!r}", field="language") from error
