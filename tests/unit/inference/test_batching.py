from hypothesis import given
from hypothesis import strategies as st

from winnow_inference.batching import BATCH_OVERHEAD_TOKENS, choose_batch, fitting_prefix

LENGTHS = st.lists(st.integers(min_value=1, max_value=600), min_size=1, max_size=80)


def padded(lengths: list[int], chosen: list[int]) -> int:
    return len(chosen) * max(lengths[position] for position in chosen)


@given(lengths=LENGTHS, budget=st.integers(1, 4096), count=st.integers(1, 40))
def test_a_batch_holds_the_oldest_and_nothing_twice(lengths: list[int], budget: int, count: int) -> None:
    chosen = choose_batch(lengths, token_budget=budget, max_count=count)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen) <= count
    assert all(0 <= position < len(lengths) for position in chosen)


@given(lengths=LENGTHS, budget=st.integers(1, 4096), count=st.integers(1, 40))
def test_a_batch_of_several_never_exceeds_the_budget(lengths: list[int], budget: int, count: int) -> None:
    chosen = choose_batch(lengths, token_budget=budget, max_count=count)
    assert len(chosen) == 1 or padded(lengths, chosen) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 4096))
def test_no_other_run_of_like_lengths_with_the_oldest_uses_the_device_better(lengths: list[int], budget: int) -> None:
    chosen = choose_batch(lengths, token_budget=budget, max_count=1000)

    def share(positions: list[int]) -> float:
        return sum(lengths[p] for p in positions) / (padded(lengths, positions) + BATCH_OVERHEAD_TOKENS)

    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    runs = [order[first:last] for first in range(len(order)) for last in range(first + 1, len(order) + 1)]
    allowed = [run for run in runs if 0 in run and (len(run) == 1 or padded(lengths, run) <= budget)]
    assert share(chosen) >= max(map(share, allowed)) - 1e-12


def test_equal_lengths_fill_the_budget() -> None:
    assert len(choose_batch([100] * 50, token_budget=1000, max_count=256)) == 10


def test_one_long_text_does_not_pad_many_short_ones() -> None:
    lengths = [10] * 20 + [500]
    chosen = choose_batch(lengths, token_budget=100_000, max_count=256)
    assert sorted(chosen) == list(range(20))


def test_a_text_over_the_budget_goes_alone() -> None:
    assert choose_batch([900, 10, 10], token_budget=512, max_count=8) == [0]


@given(lengths=LENGTHS, budget=st.integers(1, 4096), count=st.integers(1, 40))
def test_a_prefix_fits_and_one_more_would_not(lengths: list[int], budget: int, count: int) -> None:
    fitting = fitting_prefix(lengths, token_budget=budget, max_count=count)
    assert 1 <= fitting <= len(lengths)
    assert fitting == 1 or (fitting <= count and fitting * max(lengths[:fitting]) <= budget)
    if fitting < len(lengths):
        assert fitting == count or (fitting + 1) * max(lengths[: fitting + 1]) > budget
