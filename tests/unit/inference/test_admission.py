import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_inference.scheduling.admission import (
    expected_wait_seconds,
    queue_full,
    retry_seconds,
    too_large,
    wait_too_long,
)

AHEAD = st.lists(st.integers(1, 100_000), max_size=20)


def wait(tokens: int, ahead: list[int], *, turn: float = 250.0, rate: float = 10_000.0, busy: float = 0.0) -> float:
    return expected_wait_seconds(tokens, ahead, turn_tokens=turn, tokens_per_second=rate, busy_seconds=busy)


def test_nobody_ahead_is_no_wait_but_for_what_the_device_is_at() -> None:
    assert wait(1000, []) == 0
    assert wait(1000, [], busy=0.02) == 0.02


def test_a_long_request_costs_a_short_one_one_turn() -> None:
    assert wait(20, [100_000]) == pytest.approx(0.025)
    assert wait(20, [100_000] * 4) == pytest.approx(0.1)


def test_a_short_request_costs_all_that_it_has() -> None:
    assert wait(20, [100, 50]) == pytest.approx(0.015)


def test_two_long_requests_share_so_that_the_newcomer_waits_for_as_much_as_it_brings() -> None:
    assert wait(5000, [100_000]) == pytest.approx(0.5)
    assert wait(5000, [3000]) == pytest.approx(0.3)


def test_while_no_rate_is_known_nobody_is_turned_away() -> None:
    assert wait(1000, [10**9], rate=0.0, busy=5.0) == 0


@given(ahead=AHEAD, tokens=st.integers(0, 10_000), other=st.integers(1, 10_000))
def test_a_wait_is_never_longer_than_for_all_that_waits_and_never_shorter_for_more(
    ahead: list[int], tokens: int, other: int
) -> None:
    waited = wait(tokens, ahead, busy=0.01)
    # Sums of a few floats of like size.
    assert 0.01 <= waited <= (0.01 + sum(ahead) / 10_000) * (1 + 1e-9)
    assert wait(tokens, [*ahead, other], busy=0.01) > waited
    assert wait(tokens + other, ahead, busy=0.01) >= waited


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"),
    [
        (10_000, 10_000.0, 0.5),  # by then half of it is done
        (10, 10_000.0, 0.05),
        (10_000_000, 10_000.0, 30.0),
        (10_000, 0.0, 1.0),
    ],
)
def test_the_hint_to_come_back_is_when_half_is_done_within_reason(waiting: int, rate: float, seconds: float) -> None:
    assert retry_seconds(waiting, rate) == pytest.approx(seconds)


def test_a_request_that_could_never_wait_is_told_the_limit_and_not_to_come_back() -> None:
    fault = too_large(300_000, limit=262_144)
    assert fault.reason == "REQUEST_TOO_LARGE"
    assert "300,000 tokens" in fault.message
    assert "262,144" in fault.message
    assert fault.metadata == {"token_count": "300000", "max_queued_tokens": "262144"}
    assert fault.retry_after is None


def test_a_request_without_room_is_told_how_much_waits_and_when_to_come_back() -> None:
    fault = queue_full(500, waiting=262_000, limit=262_144, tokens_per_second=100_000.0)
    assert fault.reason == "QUEUE_FULL"
    assert "262,000 tokens are waiting" in fault.message
    assert fault.metadata == {"queued_tokens": "262000", "token_count": "500"}
    assert fault.retry_after == pytest.approx(1.31)


def test_a_request_that_would_wait_too_long_is_told_both_times() -> None:
    fault = wait_too_long(500, wait=2.5, limit=1.0, waiting=25_000, tokens_per_second=10_000.0)
    assert fault.reason == "WAIT_TOO_LONG"
    assert "about 2,500 ms" in fault.message
    assert "1,000 ms are allowed" in fault.message
    assert fault.metadata == {"queued_tokens": "25000", "token_count": "500", "expected_wait_micros": "2500000"}
    assert fault.retry_after == pytest.approx(1.25)
