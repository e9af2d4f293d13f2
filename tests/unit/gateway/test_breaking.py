"""A circuit breaker opens after failures in a row, and lets one call try whether the backend is back."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from winnow_gateway.breaking import BreakerSettings, BreakerState, CircuitBreaker, Passage

SETTINGS = BreakerSettings(failures=3, first_pause_seconds=1.0, longest_pause_seconds=4.0)


class Breaker:
    """A breaker under a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = CircuitBreaker(clock=lambda: self.now, settings=SETTINGS)

    def enter(self) -> Passage:
        passage = self.breaker.enter()
        assert passage is not None
        return passage

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.enter())


def test_failures_in_a_row_open_it_and_an_answer_between_starts_the_count_anew() -> None:
    it = Breaker()
    it.fail(2)
    it.breaker.succeeded(it.enter())
    it.fail(2)
    assert it.breaker.state is BreakerState.CLOSED
    it.fail()
    assert it.breaker.state is BreakerState.OPEN
    assert it.breaker.enter() is None
    assert it.breaker.retry_after == 1.0


def test_after_the_pause_one_probe_decides() -> None:
    it = Breaker()
    it.fail(3)
    it.now += 1.0
    assert it.breaker.state is BreakerState.HALF_OPEN
    probe = it.enter()
    assert probe.probe
    assert it.breaker.enter() is None, "one, not all who wait"
    it.breaker.succeeded(probe)
    assert it.breaker.state is BreakerState.CLOSED
    it.enter()


def test_every_probe_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    it = Breaker()
    it.fail(3)
    for pause in (1.0, 2.0, 4.0, 4.0):
        assert it.breaker.retry_after == pause
        it.now += pause
        it.fail()
    it.now += 4.0
    it.breaker.succeeded(it.enter())
    it.fail(3)
    assert it.breaker.retry_after == 1.0, "forgiven"


def test_a_probe_that_shows_nothing_leaves_its_place_to_the_next() -> None:
    it = Breaker()
    it.fail(3)
    it.now += 1.0
    it.breaker.abandoned(it.enter())
    assert it.enter().probe


def test_calls_that_began_before_it_opened_say_nothing_bad_and_may_say_something_good() -> None:
    it = Breaker()
    early, late = it.enter(), it.enter()
    it.fail(3)
    it.breaker.failed(early)
    assert it.breaker.retry_after == 1.0
    it.breaker.succeeded(late)
    assert it.breaker.state is BreakerState.CLOSED


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, a backend that works again is let through again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(clock=lambda: self.now, settings=SETTINGS)
        self.out: list[Passage] = []

    @rule()
    def enter(self) -> None:
        passage = self.breaker.enter()
        if passage:
            self.out.append(passage)

    @precondition(lambda self: self.out)
    @rule(how=st.sampled_from(["succeeded", "failed", "abandoned"]), which=st.integers(0, 100))
    def end(self, how: str, which: int) -> None:
        getattr(self.breaker, how)(self.out.pop(which % len(self.out)))

    @rule(quarters=st.integers(0, 40))
    def wait(self, quarters: int) -> None:
        # Added up without rounding.
        self.now += quarters / 4

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        assert sum(passage.probe for passage in self.out) <= 1 or self.breaker.state is BreakerState.CLOSED

    @invariant()
    def open_ends(self) -> None:
        assert self.breaker.retry_after <= SETTINGS.longest_pause_seconds

    def teardown(self) -> None:
        for passage in self.out:
            self.breaker.abandoned(passage)
        self.now += SETTINGS.longest_pause_seconds
        passage = self.breaker.enter()
        assert passage is not None
        self.breaker.succeeded(passage)
        assert self.breaker.state is BreakerState.CLOSED


TestAnyHistory = AnyHistory.TestCase
