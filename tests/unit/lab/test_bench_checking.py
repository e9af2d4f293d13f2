"""Results under load are held to the first ones."""

from __future__ import annotations

import numpy as np
import pytest

from winnow_lab.bench_inference.checking import Checker, Key

QUERY: Key = ("query", "tea")
PASSAGE: Key = ("passage", "tea")


def test_what_comes_again_is_right_and_what_differs_is_wrong() -> None:
    checker = Checker()
    first = np.array([[1, 0]], dtype=np.float32)
    checker.vectors([QUERY], first)
    checker.begin()
    checker.vectors([QUERY], first)
    checker.vectors([QUERY], np.array([[1, 0.1]], dtype=np.float32))
    report = checker.report()
    assert report["checked"] == {"query": 2, "passage": 0, "rerank": 0}
    assert report["wrong"]["query"] == report["wrong_total"] == 1
    assert report["worst_cosine"] == pytest.approx(1 / np.sqrt(1.01), abs=1e-5)


def test_a_text_may_have_another_vector_as_a_passage_than_as_a_query() -> None:
    checker = Checker()
    checker.vectors([QUERY, PASSAGE], np.array([[1, 0], [0, 1]], dtype=np.float32))
    checker.vectors([PASSAGE, QUERY], np.array([[0, 1], [1, 0]], dtype=np.float32))
    assert checker.report()["wrong_total"] == 0


def test_no_number_is_a_wrong_result() -> None:
    checker = Checker()
    checker.vectors([QUERY], np.array([[1, 0]], dtype=np.float32))
    checker.vectors([QUERY], np.array([[np.nan, 0]], dtype=np.float32))
    assert checker.report()["wrong_total"] == 1


def test_scores_may_differ_by_rounding_alone() -> None:
    checker = Checker()
    checker.scores("tea", [0.9, 0.1])
    checker.scores("tea", [0.9, 0.105])
    assert checker.report()["wrong_total"] == 0
    checker.scores("tea", [0.9, 0.2])
    checker.scores("tea", [0.9])
    report = checker.report()
    assert report["wrong"]["rerank"] == 2
    assert report["checked"]["rerank"] == 4


def test_a_missing_vector_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 vectors for 2 texts"):
        Checker().vectors([QUERY, PASSAGE], np.array([[1, 0]], dtype=np.float32))
