import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from winnow_inference.parity import compare_scores, compare_vectors, spearman

# Sums of some hundred float64, in another order than the library's.
TOLERANCE = 1e-12
SCORES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=60)


def matrix(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_the_cosine_is_that_of_directions_whatever_the_lengths() -> None:
    found = compare_vectors(matrix([1, 0], [3, 3], [0, 2]), matrix([2, 0], [1, 0], [0, -1]))
    assert (found.measure, found.count) == ("cosine", 3)
    assert found.least == pytest.approx(-1.0)
    assert found.mean == pytest.approx((1 + 2**-0.5 - 1) / 3)


def test_a_vector_of_noughts_is_close_to_nothing() -> None:
    assert compare_vectors(matrix([0, 0]), matrix([1, 0])).least == 0
    assert compare_vectors(matrix([0, 0]), matrix([0, 0])).least == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_a_number_is_close_to_nothing(broken: float) -> None:
    assert compare_vectors(matrix([1, 0], [broken, 1]), matrix([1, 0], [1, 1])).least == -1
    assert compare_scores(matrix([1], [broken]), matrix([1], [2])).least == -1


@given(SCORES)
def test_spearman_is_scipys_also_where_values_are_equal(pairs: list[tuple[int, int]]) -> None:
    left, right = np.array(pairs, dtype=np.float32).T
    if len(set(left)) == 1 or len(set(right)) == 1:
        expected = float(len(set(left)) == len(set(right)) == 1)  # scipy has no number for it
    else:
        expected = spearmanr(left, right).statistic
    assert spearman(left, right) == pytest.approx(expected, abs=TOLERANCE)


def test_spearman_looks_at_the_order_alone() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=200).astype(np.float32)
    assert spearman(values, np.exp(values)) == pytest.approx(1.0, abs=TOLERANCE)
    assert spearman(values, -values) == pytest.approx(-1.0, abs=TOLERANCE)
    other = random.normal(size=200).astype(np.float32)
    assert spearman(values, other) == pytest.approx(spearmanr(values, other).statistic, abs=TOLERANCE)


def test_scores_that_tell_nothing_apart_agree_only_with_their_like() -> None:
    same, different = np.full(5, 0.5, dtype=np.float32), np.arange(5, dtype=np.float32)
    assert spearman(same, same * 2) == 1.0
    assert spearman(same, different) == 0.0


def test_scores_are_compared_label_by_label() -> None:
    reference = matrix([1, 1], [2, 2], [3, 3])
    found = compare_scores(matrix([1, 3], [2, 2], [3, 1]), reference)
    assert (found.measure, found.count) == ("spearman", 3)
    assert found.least == pytest.approx(-1.0)
    assert found.mean == pytest.approx(0.0)


def test_a_verdict_is_a_sentence_for_a_person() -> None:
    assert str(compare_vectors(matrix([1, 0]), matrix([1, 0]))) == (
        "cosine to float32 1.0000 on average, 1.0000 at worst, over 1 texts"
    )
    assert str(compare_scores(matrix([1], [2]), matrix([1], [2]))).startswith("Spearman correlation to float32 1.0000")
