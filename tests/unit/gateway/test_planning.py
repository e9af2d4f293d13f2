"""Plans follow from the request, the time, the costs and the backends' health, and from nothing else."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from winnow_gateway.costs import Costs, RerankCost
from winnow_gateway.planning import (
    MAX_EXHAUSTIVE,
    DepthPolicy,
    Plan,
    RetrievalKind,
    SearchMode,
    Shortfall,
    Situation,
    extend,
    plan_search,
    refine,
)
from winnow_rpc.faults import FailedPrecondition

# Seconds, from a GPU's to those of a busy core.
seconds = st.floats(0, 60)
costs = st.builds(
    Costs,
    embed_seconds=st.floats(1e-4, 0.5),
    retrieve_seconds=st.floats(1e-4, 0.5),
    rerank=st.builds(
        RerankCost,
        fixed=st.floats(0, 0.5),
        per_token=st.floats(0, 1e-2),
        tokens_per_passage=st.floats(1, 512),
        surcharge=st.floats(1, 10),
    ),
)
situations = st.builds(
    Situation,
    mode=st.sampled_from([mode for mode in SearchMode if mode is not SearchMode.LEXICAL]),
    limit=st.integers(1, 1000),
    depth=st.none() | st.integers(1, 1000),
    depth_policy=st.just(DepthPolicy.WISH),
    document_count=st.integers(0, MAX_EXHAUSTIVE),
    lexical=st.booleans(),
    seconds=seconds,
    has_budget=st.booleans(),
    costs=costs,
    embedder_up=st.booleans(),
    reranker_up=st.booleans(),
)
# The arithmetic of sums of a few floats up to a minute.
ROUNDING = 1e-9


@given(situations)
def test_a_plan_takes_no_more_than_the_time_left(situation: Situation) -> None:
    assert plan_search(situation).seconds.total <= situation.seconds + ROUNDING


@given(situations, seconds)
def test_the_depth_never_falls_when_the_time_grows(situation: Situation, more: float) -> None:
    longer = replace(situation, seconds=situation.seconds + more)
    assert plan_search(longer).depth >= plan_search(situation).depth


@given(situations)
def test_no_more_is_reranked_than_is_wished_for_and_retrieved(situation: Situation) -> None:
    plan = plan_search(situation)
    assert 0 <= plan.depth <= plan.wish
    assert plan.depth <= plan.candidates
    assert plan.candidates >= situation.limit
    if situation.depth and situation.mode is not SearchMode.EXHAUSTIVE:
        assert plan.wish <= situation.depth


@given(situations)
def test_what_is_insisted_on_is_planned_or_refused_before_any_work(situation: Situation) -> None:
    insisting = replace(situation, depth_policy=DepthPolicy.FLOOR, mode=SearchMode.TWO_STAGE, reranker_up=True)
    wished = plan_search(replace(insisting, depth_policy=DepthPolicy.WISH))
    if wished.depth < wished.wish:
        with pytest.raises(FailedPrecondition) as caught:
            plan_search(insisting)
        assert caught.value.reason == "DEPTH_UNAFFORDABLE"
        assert int(caught.value.metadata["affordable_depth"]) == wished.depth
        return
    plan = plan_search(insisting)
    assert plan.depth == plan.wish == plan.floor
    assert plan.seconds.total <= insisting.seconds + ROUNDING


@given(situations)
def test_a_plan_without_a_reranker_keeps_what_is_insisted_on(situation: Situation) -> None:
    insisting = replace(situation, depth_policy=DepthPolicy.FLOOR, mode=SearchMode.TWO_STAGE, reranker_up=False)
    made = plan_search(insisting)
    assert made.depth == 0 < made.floor == made.wish
    assert made.shortfall is Shortfall.NO_RERANKER


@given(situations)
def test_a_plan_without_reranking_says_why(situation: Situation) -> None:
    plan = plan_search(situation)
    if plan.depth < plan.wish:
        assert plan.shortfall is (Shortfall.NO_TIME if situation.reranker_up else Shortfall.NO_RERANKER)
    else:
        assert plan.shortfall is None
    assert plan.reason
    assert (plan.mode in (SearchMode.TWO_STAGE, SearchMode.EXHAUSTIVE)) == (plan.depth > 0)


@given(situations, st.integers(0, 2000), seconds)
def test_what_was_retrieved_and_the_time_it_took_refine_the_plan(
    situation: Situation, candidates: int, left: float
) -> None:
    plan = plan_search(situation)
    candidates = min(candidates, plan.candidates)
    cost = situation.costs.rerank
    refined = refine(plan, cost=cost, seconds=left, candidates=candidates)
    assert refined.depth <= min(candidates, plan.wish)
    assert cost.seconds(refined.depth) <= left + ROUNDING
    assert refined.depth <= refine(plan, cost=cost, seconds=left + 1, candidates=candidates).depth
    assert refined.shortfall is plan.shortfall or refined.shortfall in (None, Shortfall.NO_TIME)
    if not situation.reranker_up:
        assert refined.depth == 0


@given(situations, seconds)
def test_a_plan_that_was_too_careful_is_extended_into_the_time_that_is_left(situation: Situation, left: float) -> None:
    plan = plan_search(situation)
    if not plan.depth:
        return  # nothing is to be reranked, so there is nothing to extend
    cost = situation.costs.rerank
    extended = extend(plan, cost=cost, seconds=left, candidates=plan.candidates)
    assert plan.depth <= extended.depth <= min(plan.wish, plan.candidates)
    assert cost.seconds(extended.depth - plan.depth) <= left
    assert (extended.shortfall is None) == (extended.depth == plan.wish)


def plan(**given_: object) -> Plan:
    return plan_search(Situation(**given_))  # type: ignore[arg-type]


CHEAP = Costs(0.01, 0.01, RerankCost(fixed=0.01, per_token=1e-4, tokens_per_passage=100))
"""A hundredth of a second a passage, and as much before the first."""


def test_auto_reranks_everything_where_that_is_no_more_than_the_depth() -> None:
    for count, mode in ((80, SearchMode.EXHAUSTIVE), (81, SearchMode.TWO_STAGE)):
        made = plan(document_count=count, depth=80, costs=CHEAP)
        assert (made.mode, made.depth) == (mode, 80)
    assert plan(document_count=80, depth=80, costs=CHEAP).reason == "the time is enough to rerank all 80 documents"


def test_auto_takes_a_budget_for_leave_to_spend_it_on_more_than_the_usual_depth() -> None:
    assert plan(document_count=500, seconds=30, costs=CHEAP).mode is SearchMode.TWO_STAGE
    spending = plan(document_count=500, seconds=30, has_budget=True, costs=CHEAP)
    assert (spending.mode, spending.depth) == (SearchMode.EXHAUSTIVE, 500)
    assert plan(document_count=500, seconds=2, has_budget=True, costs=CHEAP).mode is SearchMode.TWO_STAGE
    assert plan(document_count=1001, seconds=60, has_budget=True, costs=CHEAP).mode is SearchMode.TWO_STAGE


def test_auto_retrieves_where_there_is_no_time_and_where_there_is_no_reranker() -> None:
    hurried = plan(seconds=0.03, costs=CHEAP, document_count=1000)
    assert (hurried.mode, hurried.depth, hurried.shortfall) == (SearchMode.RETRIEVE, 0, Shortfall.NO_TIME)
    assert hurried.reason == "there is no time to rerank"
    alone = plan(reranker_up=False, costs=CHEAP, document_count=1000)
    assert (alone.mode, alone.shortfall) == (SearchMode.RETRIEVE, Shortfall.NO_RERANKER)
    assert alone.reason == "the reranker is not to be had"
    asked = plan(mode=SearchMode.TWO_STAGE, reranker_up=False, costs=CHEAP)
    assert asked.reason == "two-stage was asked for, but the reranker is not to be had"


def test_the_depth_is_what_the_time_pays() -> None:
    # 20 ms go to embedding and retrieving, 10 ms come before the first passage; 10 ms each are left for seven.
    made = plan(seconds=0.1001, costs=CHEAP, document_count=1000)
    assert (made.mode, made.depth, made.wish) == (SearchMode.TWO_STAGE, 7, 100)
    assert made.candidates == 21, "for the time that may be left over"
    assert made.seconds.rerank == pytest.approx(0.08)


def test_retrieval_alone_fetches_what_is_shown_and_reranks_nothing() -> None:
    made = plan(mode=SearchMode.RETRIEVE, limit=7, depth=100)
    assert (made.mode, made.candidates, made.depth, made.reason) == (SearchMode.RETRIEVE, 7, 0, "asked for")


def test_at_least_the_limit_is_retrieved() -> None:
    assert plan(limit=200, depth=50, costs=CHEAP).candidates == 200


@pytest.mark.parametrize(
    ("lexical", "up", "asked", "kind"),
    [
        (False, True, None, RetrievalKind.DENSE),
        (True, True, None, RetrievalKind.HYBRID),
        (True, True, RetrievalKind.DENSE, RetrievalKind.DENSE),
        (True, True, RetrievalKind.HYBRID, RetrievalKind.HYBRID),
        (True, False, RetrievalKind.DENSE, RetrievalKind.LEXICAL),
        (False, False, None, RetrievalKind.DENSE),
    ],
)
def test_the_first_stage_looks_at_all_there_is_unless_told_otherwise(
    lexical: bool, up: bool, asked: RetrievalKind | None, kind: RetrievalKind
) -> None:
    assert plan(lexical=lexical, embedder_up=up, kind=asked).kind is kind


@pytest.mark.parametrize("asked", [{"mode": SearchMode.LEXICAL}, {"kind": RetrievalKind.HYBRID}])
def test_bm25_where_there_is_none_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        plan(**asked)
    assert caught.value.reason == "NO_LEXICAL_INDEX"


def test_bm25_alone_embeds_and_reranks_nothing() -> None:
    made = plan(mode=SearchMode.LEXICAL, lexical=True)
    assert (made.mode, made.kind, made.depth, made.seconds.embed) == (SearchMode.LEXICAL, RetrievalKind.LEXICAL, 0, 0)


def test_every_document_of_a_large_collection_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="10,001 documents") as caught:
        plan(mode=SearchMode.EXHAUSTIVE, document_count=10_001)
    assert caught.value.reason == "COLLECTION_TOO_LARGE"


def test_a_depth_that_is_unaffordable_is_refused_with_the_figures() -> None:
    with pytest.raises(FailedPrecondition, match="enough for 7") as caught:
        plan(seconds=0.1001, depth=50, depth_policy=DepthPolicy.FLOOR, costs=CHEAP)
    assert caught.value.metadata["depth"] == "50"
    assert caught.value.metadata["needed_micros"] == "510000"


def test_a_floor_is_as_many_as_there_are() -> None:
    made = plan(depth=500, depth_policy=DepthPolicy.FLOOR, costs=CHEAP, document_count=20, seconds=1)
    assert made.floor == made.depth == 20


@given(situations)
def test_what_is_fetched_can_be_reranked_when_there_turns_out_to_be_time(situation: Situation) -> None:
    made = plan_search(situation)
    free = RerankCost(fixed=0, per_token=0, tokens_per_passage=1)
    assert refine(made, cost=free, seconds=1, candidates=made.candidates).depth >= made.depth


@pytest.mark.parametrize(("fresh", "wish"), [(True, 3), (False, 100)])
def test_a_count_that_may_be_old_does_not_limit_the_depth(fresh: bool, wish: int) -> None:
    plan = plan_search(Situation(mode=SearchMode.TWO_STAGE, document_count=3, fresh=fresh, seconds=60))
    assert (plan.wish, plan.candidates) == (wish, max(10, wish))
