"""How much searching may be in hand at once."""

from contextlib import ExitStack

import pytest

from winnow_gateway.admission import Admission, AdmissionSettings
from winnow_rpc.faults import ResourceExhausted

SETTINGS = AdmissionSettings(max_searches=5, max_work_seconds=10.0, sharing=4)


def test_work_is_admitted_up_to_a_multiple_of_a_searchs_own_time() -> None:
    admission = Admission(SETTINGS)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admission.admitted(work_seconds=0.2, left_seconds=0.2))
        with pytest.raises(ResourceExhausted) as caught, admission.admitted(work_seconds=0.2, left_seconds=0.2):
            pass
        assert caught.value.reason == "TOO_MANY_SEARCHES"
        assert caught.value.retry_after == pytest.approx(0.05)
        assert caught.value.metadata["search_count"] == "4"
        # One with more time of its own may still share.
        with admission.admitted(work_seconds=0.2, left_seconds=1.0):
            assert admission.searches == 5
    assert (admission.searches, admission.work_seconds) == (0, 0.0)


def test_there_is_a_bound_on_all_work_and_on_all_searches() -> None:
    admission = Admission(SETTINGS)
    with admission.admitted(work_seconds=9, left_seconds=30):
        with pytest.raises(ResourceExhausted) as caught, admission.admitted(work_seconds=5, left_seconds=30):
            pass
        assert caught.value.retry_after == pytest.approx(1.0), "4 s too much, shared by 4"
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(admission.admitted(work_seconds=0, left_seconds=30))
        with pytest.raises(ResourceExhausted), admission.admitted(work_seconds=0, left_seconds=30):
            pass


def test_one_search_alone_is_never_too_many() -> None:
    admission = Admission(SETTINGS)
    with admission.admitted(work_seconds=1000, left_seconds=0.001):
        assert admission.searches == 1


def test_a_search_that_fails_gives_its_place_back() -> None:
    admission = Admission(SETTINGS)
    with pytest.raises(ValueError, match="x"), admission.admitted(work_seconds=1, left_seconds=1):
        raise ValueError("x")
    assert (admission.searches, admission.work_seconds) == (0, 0.0)
