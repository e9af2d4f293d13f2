"""Scored pairs: what is read, what is refused, and how vectors are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from winnow_lab.evaluating.in_process import similarities
from winnow_lab.evaluating.similarity import ScoredPair, paired_similarities, read_pairs
from winnow_rpc.faults import InvalidArgument


def test_pairs_are_read_from_csv_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('sentence1,sentence2,score\n"a, b",c,4.5\nd,e,0\n')
    assert read_pairs(path) == [ScoredPair("a, b", "c", 4.5), ScoredPair("d", "e", 0.0)]
    for content, said in (
        ("sentence1,sentence2,score\na,b,1\nc,d,much\n", "line 3"),
        ("sentence1,sentence2,score\na,b\n", "line 2"),
        ("sentence1,sentence2,score\na,b,nan\n", "line 2"),
        ("first,second,score\na,b,1\n", "line 2"),
        ("sentence1,sentence2,score\na,b,1\nc,d,1\n", "2 pairs and no two different scores"),
        ("", "0 pairs"),
    ):
        path.write_text(content)
        with pytest.raises(InvalidArgument, match=said):
            read_pairs(path)


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
