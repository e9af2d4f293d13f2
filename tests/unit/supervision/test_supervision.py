from __future__ import annotations

import signal

import pytest

from winnow_client.cli.supervision import Backoff, Exit, GiveUp, Phase, Restart, Supervision, Verdict, all_serving


def ended(supervision: Supervision, *, now: float, status: int = 1) -> Verdict:
    return supervision.exited(Exit(status), now=now)


def served(*, until: float = 0.0) -> Supervision:
    """A process that came up at time 0 and was seen serving until then."""
    supervision = Supervision("index")
    supervision.started()
    supervision.listening("127.0.0.1:6334")
    supervision.probed(serving=True, now=0.0)
    supervision.probed(serving=True, now=until)
    return supervision


def test_the_wait_doubles_from_half_a_second_to_thirty() -> None:
    backoff = Backoff()
    assert [backoff.delay(n) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay(10**6) == 30


def test_a_process_that_has_served_is_restarted_again_and_again_ever_more_slowly() -> None:
    supervision = served()
    waits = []
    for _ in range(9):
        verdict = ended(supervision, now=1.0)
        assert isinstance(verdict, Restart)
        waits.append(verdict.after_seconds)
        supervision.started()
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_of_health_makes_the_wait_short_again() -> None:
    supervision = served()
    for _ in range(5):
        ended(supervision, now=1.0)
        supervision.started()
    supervision.probed(serving=True, now=100.0)
    supervision.probed(serving=True, now=160.0)
    verdict = ended(supervision, now=160.0)
    assert isinstance(verdict, Restart)
    assert verdict.after_seconds == 0.5


def test_health_of_less_than_a_minute_forgives_nothing() -> None:
    supervision = served()
    ended(supervision, now=1.0)
    supervision.started()
    supervision.probed(serving=True, now=100.0)
    verdict = ended(supervision, now=159.9)
    assert isinstance(verdict, Restart)
    assert verdict.after_seconds == 1.0


def test_a_break_in_health_starts_the_minute_anew() -> None:
    supervision = served()
    ended(supervision, now=1.0)
    supervision.started()
    supervision.probed(serving=True, now=100.0)
    supervision.probed(serving=False, now=150.0)
    supervision.probed(serving=True, now=151.0)
    verdict = ended(supervision, now=170.0)
    assert isinstance(verdict, Restart)
    assert verdict.after_seconds == 1.0


def test_a_refusal_to_start_is_final_before_it_ever_served() -> None:
    supervision = Supervision("index")
    supervision.started()
    supervision.refused(reason="CANNOT_LISTEN", message="cannot listen on 127.0.0.1:6334: the port is in use")
    verdict = ended(supervision, now=1.0)
    assert verdict == GiveUp("index cannot start: cannot listen on 127.0.0.1:6334: the port is in use")


def test_a_refusal_to_start_is_retried_once_it_has_served() -> None:
    supervision = served()
    ended(supervision, now=1.0)
    supervision.started()
    supervision.refused(reason="DATA_IN_USE", message="the directory is in use")
    assert ended(supervision, now=2.0) == Restart(
        1.0, "index cannot start: the directory is in use; restarting it in 1 s"
    )


def test_a_refusal_because_something_is_not_there_yet_is_tried_a_few_times() -> None:
    supervision = Supervision("gateway")
    for _ in range(2):
        supervision.started()
        supervision.refused(reason="UNAVAILABLE", message="the index does not answer")
        assert isinstance(ended(supervision, now=1.0), Restart)
    supervision.started()
    supervision.refused(reason="UNAVAILABLE", message="the index does not answer")
    verdict = ended(supervision, now=1.0)
    assert isinstance(verdict, GiveUp)
    assert "the index does not answer" in verdict.sentence


def test_a_process_that_crashes_at_each_of_three_first_starts_is_given_up_with_its_last_words() -> None:
    supervision = Supervision("embedder")
    for _ in range(2):
        supervision.started()
        assert isinstance(ended(supervision, now=0.0), Restart)
    supervision.started()
    verdict = supervision.exited(Exit(-signal.SIGSEGV), now=0.0, last_words="MemoryError")
    assert verdict == GiveUp(
        "embedder was killed by SIGSEGV at each of 3 starts before it ever served, having said: MemoryError"
    )


def test_a_refusal_of_an_earlier_start_does_not_count_against_a_later_one() -> None:
    supervision = Supervision("index")
    supervision.started()
    supervision.refused(reason="UNAVAILABLE", message="early")
    ended(supervision, now=0.0)
    supervision.started()
    verdict = ended(supervision, now=0.0)
    assert "early" not in verdict.sentence


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(0, "ended with exit status 0"), (3, "ended with exit status 3"), (-9, "was killed by SIGKILL")],
)
def test_an_end_is_told_by_its_status_or_by_the_name_of_its_signal(status: int, sentence: str) -> None:
    assert str(Exit(status)) == sentence


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert str(Exit(-250)) == "was killed by signal 250"


def test_the_phases_follow_health() -> None:
    supervision = Supervision("index")

    def phase_after(serving: bool) -> tuple[bool, Phase]:
        return supervision.probed(serving=serving, now=0.0), supervision.phase

    assert phase_after(serving=True) == (False, Phase.DOWN), "a stranger on the port is not our process"
    supervision.started()
    assert phase_after(serving=False) == (False, Phase.STARTING)
    assert phase_after(serving=True) == (True, Phase.SERVING)
    assert phase_after(serving=True) == (False, Phase.SERVING)
    assert phase_after(serving=False) == (True, Phase.NOT_SERVING)
    ended(supervision, now=0.0)
    assert phase_after(serving=True) == (False, Phase.DOWN)


def test_the_stack_is_ready_when_every_process_is_serving() -> None:
    first, second = served(), Supervision("gateway")
    second.started()
    assert not all_serving([first, second])
    second.probed(serving=True, now=0.0)
    assert all_serving([first, second])
    first.probed(serving=False, now=0.0)
    assert not all_serving([first, second])


def test_the_port_that_a_process_listened_on_is_kept_over_its_restarts() -> None:
    supervision = Supervision("index")
    assert supervision.port == 0
    supervision.started()
    supervision.listening("127.0.0.1:43210")
    ended(supervision, now=0.0)
    supervision.started()
    assert supervision.port == 43210
