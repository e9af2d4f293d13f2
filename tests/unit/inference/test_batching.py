import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.inference.fakes import FixedCosts
from winnow_inference.scheduling.batching import BatchBounds, choose_batch, fitting_prefix
from winnow_inference.scheduling.costs import CostModel

LENGTHS = st.lists(st.integers(min_value=1, max_value=600), min_size=1, max_size=60)
# From a GPU's to a slow core's, each of the three sometimes nothing; never all.
COSTS = st.builds(
    FixedCosts,
    st.sampled_from([0.0, 1e-4, 1e-3, 1e-2]),
    st.sampled_from([1e-7, 1e-5, 1e-4]),
    st.sampled_from([0.0, 1e-9, 1e-7]),
)
BOUNDS = st.builds(
    BatchBounds,
    seconds=st.sampled_from([1e-4, 1e-3, 0.025, 0.1, 1e6]),
    tokens=st.integers(1, 8192),
    count=st.integers(1, 80),
)
ANYTHING = BatchBounds(seconds=1e6, tokens=10**9, count=10**6)


def padded(lengths: list[int], chosen: list[int]) -> int:
    return len(chosen) * max(lengths[position] for position in chosen)


def seconds(lengths: list[int], chosen: list[int], costs: CostModel) -> float:
    return costs.seconds(len(chosen), max(lengths[position] for position in chosen))


def is_allowed(lengths: list[int], chosen: list[int], costs: CostModel, bounds: BatchBounds) -> bool:
    return len(chosen) == 1 or (
        len(chosen) <= bounds.count
        and padded(lengths, chosen) <= bounds.tokens
        # The same sum in another order may end on the other side of the bound.
        and seconds(lengths, chosen, costs) <= bounds.seconds * (1 + 1e-12)
    )


@given(lengths=LENGTHS, costs=COSTS, bounds=BOUNDS)
def test_a_batch_holds_the_oldest_and_nothing_twice_the_longest_first(
    lengths: list[int], costs: CostModel, bounds: BatchBounds
) -> None:
    chosen = choose_batch(lengths, costs=costs, bounds=bounds)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen)
    assert all(0 <= position < len(lengths) for position in chosen)
    taken = [lengths[position] for position in chosen]
    assert taken == sorted(taken, reverse=True)


@given(lengths=LENGTHS, costs=COSTS, bounds=BOUNDS)
def test_a_batch_is_never_over_the_bounds_unless_it_is_one_sequence(
    lengths: list[int], costs: CostModel, bounds: BatchBounds
) -> None:
    assert is_allowed(lengths, choose_batch(lengths, costs=costs, bounds=bounds), costs, bounds)


@given(lengths=LENGTHS, costs=COSTS, bounds=BOUNDS)
def test_no_other_run_of_like_lengths_with_the_oldest_gets_more_real_tokens_a_second(
    lengths: list[int], costs: CostModel, bounds: BatchBounds
) -> None:
    def rate(positions: list[int]) -> float:
        return sum(lengths[position] for position in positions) / seconds(lengths, positions, costs)

    order = np.argsort(lengths, kind="stable").tolist()
    runs = [order[first:last] for first in range(len(order)) for last in range(first + 1, len(order) + 1)]
    best = max(rate(run) for run in runs if 0 in run and is_allowed(lengths, run, costs, bounds))
    # Rates that differ by less are taken for equal, and the larger batch goes.
    assert rate(choose_batch(lengths, costs=costs, bounds=bounds)) >= best * (1 - 2e-9)


@pytest.mark.parametrize(
    ("bounds", "fit"),
    [
        (BatchBounds(seconds=0.0105, tokens=10**6, count=256), 9),  # 1 ms, and 1 ms for each hundred tokens
        (BatchBounds(seconds=1.0, tokens=1000, count=256), 10),
        (BatchBounds(seconds=1.0, tokens=10**6, count=7), 7),
    ],
)
def test_equal_lengths_fill_the_slice_and_no_more(bounds: BatchBounds, fit: int) -> None:
    costs = FixedCosts(1e-3, 1e-5)
    assert len(choose_batch([100] * 50, costs=costs, bounds=bounds)) == fit
    assert fitting_prefix([100] * 50, costs=costs, bounds=bounds) == fit


def test_equal_lengths_go_together_even_where_nothing_is_gained() -> None:
    """Without a fixed cost a batch of one is as good as a batch of all: then it is all."""
    assert len(choose_batch([100] * 50, costs=FixedCosts(0.0, 1e-5), bounds=ANYTHING)) == 50


def test_a_dear_start_is_shared_by_as_many_as_fit() -> None:
    lengths = [100, 90, 100, 80, 95]
    assert len(choose_batch(lengths, costs=FixedCosts(1e-2, 1e-6), bounds=ANYTHING)) == 5


def test_one_long_text_does_not_pad_many_short_ones() -> None:
    chosen = choose_batch([10] * 20 + [500], costs=FixedCosts(1e-3, 1e-5), bounds=ANYTHING)
    assert sorted(chosen) == list(range(20))


def test_a_long_text_that_is_the_oldest_does_not_take_the_short_ones_along() -> None:
    assert choose_batch([500] + [10] * 20, costs=FixedCosts(1e-3, 1e-5), bounds=ANYTHING) == [0]


def test_long_texts_pay_for_their_pairs_of_tokens() -> None:
    bounds = BatchBounds(seconds=0.025, tokens=10**6, count=256)
    quadratic = FixedCosts(0.0, 1e-6, 1e-6)
    assert len(choose_batch([10] * 300, costs=quadratic, bounds=bounds)) == 227  # 25 ms / (10 × 11 µs)
    assert len(choose_batch([100] * 300, costs=quadratic, bounds=bounds)) == 2  # 25 ms / (100 × 101 µs)


@pytest.mark.parametrize(
    "bounds",
    [
        BatchBounds(seconds=1.0, tokens=512, count=8),
        BatchBounds(seconds=0.005, tokens=10**6, count=8),
        BatchBounds(seconds=1e-9, tokens=10**6, count=8),
    ],
)
def test_a_text_over_the_bounds_goes_alone(bounds: BatchBounds) -> None:
    costs = FixedCosts(1e-3, 1e-5)
    assert choose_batch([900, 900, 10], costs=costs, bounds=bounds) == [0]
    assert fitting_prefix([900, 900, 10], costs=costs, bounds=bounds) == 1


def test_costs_next_to_nothing_are_no_trouble() -> None:
    assert len(choose_batch([10] * 50, costs=FixedCosts(0.0, 1e-18), bounds=ANYTHING)) == 50


@given(lengths=LENGTHS, costs=COSTS, bounds=BOUNDS)
def test_a_prefix_fits_and_one_more_would_not(lengths: list[int], costs: CostModel, bounds: BatchBounds) -> None:
    fitting = fitting_prefix(lengths, costs=costs, bounds=bounds)
    assert 1 <= fitting <= len(lengths)
    assert is_allowed(lengths, list(range(fitting)), costs, bounds)
    if fitting < len(lengths):
        more = list(range(fitting + 1))
        assert (
            len(more) > bounds.count
            or padded(lengths, more) > bounds.tokens
            or seconds(lengths, more, costs) > bounds.seconds
        )


@given(lengths=LENGTHS, bounds=BOUNDS)
def test_before_anything_was_measured_batches_are_made_all_the_same(lengths: list[int], bounds: BatchBounds) -> None:
    costs = CostModel()
    assert is_allowed(lengths, choose_batch(lengths, costs=costs, bounds=bounds), costs, bounds)
