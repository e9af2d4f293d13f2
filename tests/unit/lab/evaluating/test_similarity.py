"""Scored pairs: what is read, what is refused, and how vectors are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from winnow_lab.evaluating.in_process import similarities
from winnow_lab.evaluating.similarity import name_of, paired_similarities, read_pairs
from winnow_relevance import pearson
from winnow_rpc.faults import InvalidArgument


def test_pairs_are_read_of_any_range_of_scores_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text('sentence1,sentence2,score\n"a, b",c,4.5\nd,e,-1\nf,g,4.5\n')
    pairs = read_pairs(path, "test")
    assert [(pair.sentence1, pair.sentence2) for pair in pairs] == [("a, b", "c"), ("d", "e"), ("f", "g")]
    assert pairs[0].score == pairs[2].score
    assert pearson([pair.score for pair in pairs], [4.5, -1, 4.5]) == pytest.approx(1)
    assert read_pairs(tmp_path, "test") == pairs, "a folder has a file for each split"
    assert name_of(path, "") == name_of(tmp_path, "test") == f"{tmp_path.name}-test"
    path.write_text("sentence1,sentence2,score\na,b,1\nc,d,much\n")
    with pytest.raises(InvalidArgument, match=r"test\.csv.*3"):
        read_pairs(path, "test")


@pytest.mark.parametrize("measure", ["cosine", "dot", "euclidean"])
def test_vectors_are_compared_by_the_models_own_measure(measure: str) -> None:
    generator = np.random.default_rng(0)
    one, other = (generator.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    expected = {
        "cosine": (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1),
        "dot": (one * other).sum(1),
        "euclidean": -np.linalg.norm(one - other, axis=1),
    }[measure]
    assert paired_similarities(one, other, measure) == pytest.approx(expected, abs=1e-5)
    assert similarities(one, other, measure).diagonal() == pytest.approx(expected, abs=1e-5)


def test_a_measure_that_is_not_computed_here_is_refused() -> None:
    vectors = np.ones((1, 2), dtype=np.float32)
    assert paired_similarities(vectors, vectors + 1, "manhattan") == [-2.0]
    with pytest.raises(InvalidArgument, match="leave --in-process out"):
        similarities(vectors, vectors, "manhattan")


def test_scores_are_kept_as_they_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("sentence1,sentence2,score\na,b,4.5\nc,d,3000000\n")
    assert [pair.score for pair in read_pairs(path, "test")] == [4.5, 3_000_000]
