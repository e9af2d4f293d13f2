"""The time of one search."""

import pytest

from winnow_gateway.budgets import Budget
from winnow_rpc.faults import DeadlineExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_optional_work_stops_a_margin_before_the_budget_and_the_rest_goes_on_to_the_deadline() -> None:
    clock = Clock()
    budget = Budget(deadline_seconds=10, budget_seconds=0.2, margin_seconds=0.01, clock=clock)
    assert budget.left == pytest.approx(0.186)
    clock.now += 0.5
    assert (budget.left, budget.until_deadline, budget.elapsed) == (0.0, 9.5, 0.5)
    clock.now += 9.5
    with pytest.raises(DeadlineExceeded):
        _ = budget.until_deadline


def test_without_a_budget_the_deadline_is_one_and_a_later_budget_means_nothing() -> None:
    for wanted in (None, 50.0):
        budget = Budget(deadline_seconds=10, budget_seconds=wanted, margin_seconds=0.01, clock=Clock())
        assert budget.left == pytest.approx(9.75), "an answer that is late for the deadline is lost"
        assert budget.has_budget is (wanted is not None)


def test_the_margin_leaves_most_of_a_short_time_to_work_with() -> None:
    budget = Budget(deadline_seconds=10, budget_seconds=0.005, margin_seconds=0.01, clock=Clock())
    assert budget.left == pytest.approx(0.004)
