"""BM25 in memory: the formula by hand. That it is the index's own, `tests/system/test_evaluate.py` shows."""

from __future__ import annotations

import math

import pytest

from winnow_lab.lexical import Bm25Index
from winnow_rpc.faults import InvalidArgument

TEXTS = ["foxes and hounds", "a fox", "the dog", "fox fox fox fox"]


def expected(count: int, words: int, *, average: float, found_in: int) -> float:
    """Qdrant's BM25: k = 1.2, b = 0.75, words without stop words."""
    rarity = math.log((len(TEXTS) - found_in + 0.5) / (found_in + 0.5) + 1)
    return rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * words / average))


def test_scores_are_those_of_the_formula_by_stems_and_without_stop_words() -> None:
    index = Bm25Index(TEXTS, language="english", average_words=2)
    of = [expected(*each, average=2, found_in=3) for each in ((1, 2), (1, 1), (0, 1), (4, 4))]
    assert index.scores("the fox") == pytest.approx(of, rel=1e-5)
    hound = expected(1, 2, average=2, found_in=1)
    assert index.scores("foxes hounds") == pytest.approx([of[0] + hound, of[1], 0, of[3]], rel=1e-5)
    assert index.scores("nothing of it").tolist() == [0, 0, 0, 0]


def test_without_a_language_words_are_taken_as_they_are() -> None:
    index = Bm25Index(TEXTS, language="none", average_words=2)
    assert (index.scores("the") > 0).tolist() == [False, False, True, False]
    assert (index.scores("fox") > 0).tolist() == [False, True, False, True]
    with pytest.raises(InvalidArgument, match="klingon"):
        Bm25Index(TEXTS, language="klingon", average_words=2)
