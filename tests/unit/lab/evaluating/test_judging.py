"""What systems are worth: figures, ceilings, differences to a baseline."""

from __future__ import annotations

import pytest

from tests.unit.lab.evaluating.made_up import an_answer
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID
from winnow_lab.evaluating.judging import Row, estimated, measure
from winnow_lab.evaluating.systems import EXHAUSTIVE, systems
from winnow_rpc.faults import InvalidArgument

ANSWERS = [
    an_answer({"c": 1.0}, scores={"a": 0.1, "b": 0.0, "c": 0.9}, exhaustive=["c", "a", "b"], query="one"),
    an_answer({"a": 1.0, "far": 1.0}, scores={"a": 0.1, "b": 0.0, "c": 0.9}, exhaustive=["c", "a"], query="two"),
]


def rows(*, baseline: str = HYBRID) -> dict[str, Row]:
    judged = measure(ANSWERS, systems(depths=[2], exhaustive=True), k=10, deep=100)
    return {row.system: row for row in estimated(judged, baseline=baseline, first_depth=2, document_count=9)}


def test_figures_are_means_over_the_queries_with_their_bounds() -> None:
    found = rows()
    assert found[BM25].measures["MRR@10"].mean == pytest.approx((1 + 0.5) / 2)
    assert found[DENSE].measures["Recall@100"].mean == pytest.approx((0 + 0.5) / 2)
    first = 1 / (1 + 0.6309)
    assert found[HYBRID].measures["nDCG@10"].mean == pytest.approx((0.6309 + first) / 2, abs=1e-4)
    for row in found.values():
        for estimate in row.measures.values():
            assert estimate.low <= estimate.mean <= estimate.high


def test_the_ceiling_is_that_of_the_candidates_and_stands_beside_every_row() -> None:
    found = rows()
    # dense found nothing for the first query; of the second it has a, and nobody has the other.
    best = 1 / (1 + 0.6309)
    assert found["dense, rerank 2"].ceiling == pytest.approx((0 + best) / 2, abs=1e-4)
    assert found["hybrid, rerank 2"].ceiling == pytest.approx((1 + best) / 2, abs=1e-4)
    assert found["hybrid, rerank 2"].candidate_recall == pytest.approx((1 + 0.5) / 2)
    assert (found["hybrid, rerank 2"].candidates, found[EXHAUSTIVE].candidates) == (2, 9)
    assert (found[EXHAUSTIVE].ceiling, found[EXHAUSTIVE].candidate_recall) == pytest.approx((1, 1))
    for row in found.values():
        assert row.measures["nDCG@10"].mean <= row.ceiling + 1e-9


def test_differences_are_to_the_baseline_that_was_named() -> None:
    found = rows(baseline=DENSE)
    assert found[DENSE].against_baseline is None
    gain = found[HYBRID].against_baseline
    assert gain is not None
    assert gain["nDCG@10"].mean == pytest.approx(0.6309 / 2, abs=1e-4)
    with pytest.raises(InvalidArgument, match="hybrid, rerank 2"):
        rows(baseline="bm25")
