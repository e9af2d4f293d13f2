"""Searches whose callers insist on a depth: they get it, or a failure that says why not."""

from typing import Any

import pytest

from tests.contract.gateway.calls import budget, fault, fill, fill_many, only, search
from tests.contract.gateway.conftest import Gateway
from tests.fakes.index import FakeIndex
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_rpc import faults

FLOOR: dict[str, Any] = {"depth": 20, "depth_policy": s.DEPTH_POLICY_FLOOR}


async def test_a_depth_that_is_insisted_on_and_unaffordable_is_refused_before_any_work(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.delay = 0.02
    for _ in range(2):
        await gateway.stub.Search(search())
    calls, searches = gateway.reranker.calls, len(gateway.index.retrievals)
    floor = {"depth": 40, "depth_policy": s.DEPTH_POLICY_FLOOR}
    came = await fault(gateway.stub.Search(search(budget_micros=budget(0.1), **floor)))
    assert isinstance(came, faults.FailedPrecondition)
    assert came.reason == "DEPTH_UNAFFORDABLE"
    assert (gateway.reranker.calls, len(gateway.index.retrievals)) == (calls, searches)
    wish = await gateway.stub.Search(search(budget_micros=budget(0.15), depth=40))
    assert 0 < wish.planned_depth < 40
    assert only(wish).reason == "DEADLINE"
    response = await gateway.stub.Search(search(budget_micros=budget(5), **floor))
    assert (response.planned_depth, response.reranked_count) == (40, 40)
    assert not response.degradations


async def test_a_floor_goes_before_the_budget(gateway: Gateway) -> None:
    await fill_many(gateway)
    await gateway.stub.Search(search())
    gateway.reranker.delay = 0.03
    response = await gateway.stub.Search(search(budget_micros=budget(0.15), **FLOOR))
    assert response.reranked_count == 20, "it had seemed to cost less"


async def test_a_floor_that_the_deadline_cuts_off_is_no_answer(gateway: Gateway) -> None:
    await fill_many(gateway)
    await gateway.stub.Search(search())
    gateway.reranker.delay = 0.2
    came = await fault(gateway.stub.Search(search(**FLOOR), timeout=1))
    assert isinstance(came, faults.DeadlineExceeded)
    assert (came.reason, came.metadata["depth"]) == ("FLOOR_NOT_REACHED", "20")
    assert 0 < int(came.metadata["reranked_count"]) < 20
    assert "no fewer" in came.message, "the gateway says it, not the end of the call"


@pytest.mark.parametrize("mode", [s.SEARCH_MODE_AUTO, s.SEARCH_MODE_TWO_STAGE, s.SEARCH_MODE_EXHAUSTIVE])
@pytest.mark.parametrize("fails_at", [0, 3])
async def test_a_floor_that_the_reranker_does_not_finish_is_no_answer(
    gateway: Gateway, mode: s.SearchMode, fails_at: int
) -> None:
    await fill_many(gateway)
    gateway.reranker.failure, gateway.reranker.fails_at = faults.Unavailable("it is gone"), fails_at
    came = await fault(gateway.stub.Search(search(mode=mode, **FLOOR)))
    assert isinstance(came, faults.Unavailable)
    assert (came.reason, came.metadata["cause"]) == ("RERANKER_UNAVAILABLE", "UNAVAILABLE")
    assert came.metadata["reranked_count"] == str(2 * fails_at)
    assert "it is gone" in came.message


async def test_a_floor_without_a_reranker_is_refused_before_any_work(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.failure = faults.Unavailable("it cannot be reached")
    for _ in range(5):
        assert only(await gateway.stub.Search(search())).reason == "UNAVAILABLE"
    retrievals = len(gateway.index.retrievals)
    for mode in (s.SEARCH_MODE_AUTO, s.SEARCH_MODE_TWO_STAGE, s.SEARCH_MODE_EXHAUSTIVE):
        came = await fault(gateway.stub.Search(search(mode=mode, **FLOOR)))
        assert isinstance(came, faults.Unavailable)
        assert (came.reason, came.metadata["cause"]) == ("RERANKER_UNAVAILABLE", "BREAKER_OPEN")
        assert came.retry_after
    assert len(gateway.index.retrievals) == retrievals


async def test_a_floor_over_documents_that_the_index_does_not_give_is_no_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_many(gateway)

    async def gone(*_: object, **__: object) -> None:
        raise faults.Unavailable("the index went away")

    monkeypatch.setattr(FakeIndex, "documents", gone)
    came = await fault(gateway.stub.Search(search(mode=s.SEARCH_MODE_EXHAUSTIVE, **FLOOR)))
    assert isinstance(came, faults.Unavailable)
    assert came.reason == "INDEX_UNAVAILABLE"
    assert gateway.reranker.calls == 0


async def test_a_floor_is_as_many_as_there_are(gateway: Gateway) -> None:
    await fill(gateway)
    assert (await gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE, **FLOOR))).reranked_count == 4
    two = d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=["cats", "dogs"]))])
    for mode in (s.SEARCH_MODE_TWO_STAGE, s.SEARCH_MODE_EXHAUSTIVE):
        assert (await gateway.stub.Search(search(mode=mode, filter=two, **FLOOR))).reranked_count == 2
    nothing = d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=["nobody"]))])
    assert not (await gateway.stub.Search(search(filter=nothing, **FLOOR))).hits


async def test_all_documents_may_be_less_than_all_where_the_floor_is_reached(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.failure, gateway.reranker.fails_at = faults.Unavailable("it is gone"), 12
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_EXHAUSTIVE, **FLOOR))
    assert (response.reranked_count, only(response).affected_count) == (24, 16)


async def test_economy_does_not_stop_before_the_floor(gateway: Gateway) -> None:
    await fill_many(gateway)
    economy = {"mode": s.SEARCH_MODE_EXHAUSTIVE, "effort": s.EFFORT_ECONOMY, "limit": 2, "query": "number7"}
    assert (await gateway.stub.Search(search(**economy))).reranked_count < 20
    response = await gateway.stub.Search(search(**economy, **FLOOR))
    assert 20 <= response.reranked_count < 40
    assert not response.degradations
