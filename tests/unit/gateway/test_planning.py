"""Plans follow from requests alone."""

import pytest

from winnow_gateway.planning import SearchMode, plan_search
from winnow_rpc.faults import Unimplemented


def test_retrieval_alone_fetches_what_is_shown_and_reranks_nothing() -> None:
    plan = plan_search(mode=SearchMode.RETRIEVE, limit=7, depth=100)
    assert (plan.mode, plan.candidates, plan.depth) == (SearchMode.RETRIEVE, 7, 0)


@pytest.mark.parametrize("mode", [None, SearchMode.TWO_STAGE])
def test_two_stages_are_the_default_and_rerank_to_the_depth(mode: SearchMode | None) -> None:
    plan = plan_search(mode=mode, limit=10, depth=50)
    assert (plan.mode, plan.candidates, plan.depth) == (SearchMode.TWO_STAGE, 50, 50)
    assert plan.reason


def test_at_least_the_limit_is_retrieved() -> None:
    assert plan_search(mode=None, limit=200, depth=50).candidates == 200


@pytest.mark.parametrize("mode", [SearchMode.AUTO, SearchMode.EXHAUSTIVE, SearchMode.LEXICAL])
def test_a_mode_that_is_not_offered_is_refused_by_name(mode: SearchMode) -> None:
    with pytest.raises(Unimplemented, match=mode.name):
        plan_search(mode=mode, limit=10, depth=100)
