"""Plans follow from requests alone."""

import pytest

from winnow_gateway.planning import RetrievalKind, SearchMode, choose_kind, plan_search
from winnow_rpc.faults import Unimplemented


@pytest.mark.parametrize("mode", [SearchMode.RETRIEVE, SearchMode.LEXICAL])
def test_the_first_stage_alone_fetches_what_is_shown_and_reranks_nothing(mode: SearchMode) -> None:
    plan = plan_search(mode=mode, limit=7, depth=100)
    assert (plan.mode, plan.candidates, plan.depth) == (mode, 7, 0)


@pytest.mark.parametrize("mode", [None, SearchMode.TWO_STAGE])
def test_two_stages_are_the_default_and_rerank_to_the_depth(mode: SearchMode | None) -> None:
    plan = plan_search(mode=mode, limit=10, depth=50)
    assert (plan.mode, plan.candidates, plan.depth) == (SearchMode.TWO_STAGE, 50, 50)
    assert plan.reason


def test_at_least_the_limit_is_retrieved() -> None:
    assert plan_search(mode=None, limit=200, depth=50).candidates == 200


@pytest.mark.parametrize("mode", [SearchMode.AUTO, SearchMode.EXHAUSTIVE])
def test_a_mode_that_is_not_offered_is_refused_by_name(mode: SearchMode) -> None:
    with pytest.raises(Unimplemented, match=mode.name):
        plan_search(mode=mode, limit=10, depth=100)


@pytest.mark.parametrize("mode", [SearchMode.RETRIEVE, SearchMode.TWO_STAGE])
def test_the_first_stage_looks_at_all_there_is_unless_told_otherwise(mode: SearchMode) -> None:
    assert choose_kind(mode=mode, asked=None, lexical=True) is RetrievalKind.HYBRID
    assert choose_kind(mode=mode, asked=None, lexical=False) is RetrievalKind.DENSE
    assert choose_kind(mode=mode, asked=RetrievalKind.HYBRID, lexical=True) is RetrievalKind.HYBRID
    for lexical in (False, True):
        assert choose_kind(mode=mode, asked=RetrievalKind.DENSE, lexical=lexical) is RetrievalKind.DENSE


def test_what_needs_bm25_is_not_to_be_had_without() -> None:
    assert choose_kind(mode=SearchMode.RETRIEVE, asked=RetrievalKind.HYBRID, lexical=False) is None
    assert choose_kind(mode=SearchMode.LEXICAL, asked=None, lexical=False) is None
    assert choose_kind(mode=SearchMode.LEXICAL, asked=None, lexical=True) is RetrievalKind.LEXICAL
