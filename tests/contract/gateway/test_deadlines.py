"""Searches over a real connection, in the time they have: what is left out when that is short, and what stops."""

import asyncio
import time

import grpc
import pytest

from tests.contract.gateway.calls import budget, fault, fill, fill_many, ingest, only, search
from tests.contract.gateway.conftest import Gateway
from winnow.search.v1 import documents_pb2 as d
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.admission import AdmissionSettings
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_gateway.queries import SearchQuery
from winnow_gateway.searching import SearchSettings
from winnow_rpc import faults
from winnow_rpc.status import fault_from_rpc_error

# Fakes wait for seconds or for ever; a busy machine is late by much less.
LATE = 1.0
"""Seconds after its budget by which an answer must be here, on a machine that does much else."""


def falls(response: s.SearchResponse) -> bool:
    scores = [hit.score for hit in response.hits]
    return scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("mixing", [None, Mixing(k=10), ScoreMixing(rerank=0.1, dense=2, lexical_absent=-1)])
async def test_reranking_stops_for_the_budget_with_what_it_has_and_stops_there_too(
    gateway: Gateway, mixing: Mixing | ScoreMixing | None
) -> None:
    await fill_many(gateway)
    ranks, scores = (None, {"hybrid": mixing}) if isinstance(mixing, ScoreMixing) else (mixing, {})
    gateway.reranker.served = type(gateway.reranker.served)("m", "c" * 64, ranks, score_mixings=scores)
    gateway.reranker.delay = 0.05
    began = time.perf_counter()
    response = await gateway.stub.Search(search(budget_micros=budget(0.4), limit=30))
    assert time.perf_counter() - began < 0.4 + LATE
    done = response.reranked_count
    assert 2 <= done < 40
    assert response.planned_depth == 40
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_PARTIAL, "DEADLINE")
    assert degradation.affected_count == 40 - done
    assert f"{done} of 40" in degradation.message
    # Those that were reranked are the best of retrieval, and go first; nothing else moves.
    assert sorted(hit.retrieval.rank for hit in response.hits[:done]) == list(range(1, min(done, 30) + 1))
    assert [hit.HasField("rerank") for hit in response.hits] == [at < done for at in range(30)]
    assert [hit.retrieval.rank for hit in response.hits[done:]] == list(range(done + 1, 31))
    assert falls(response)
    async with asyncio.timeout(5):
        await gateway.reranker.cancelled.wait()
    scored = gateway.reranker.scored
    await asyncio.sleep(0.15)
    assert gateway.reranker.scored == scored
    (given,) = gateway.reranker.timeouts
    assert given is not None
    assert 0 < given <= 0.4, "the reranker is told how long it has"


async def test_without_a_budget_the_deadline_of_the_call_is_one(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.delay = 0.05
    response = await gateway.stub.Search(search(), timeout=0.6)
    assert only(response).kind == s.DEGRADATION_KIND_RERANK_PARTIAL
    assert response.reranked_count > 0


async def test_what_came_out_of_turn_does_not_go_before_a_better_candidate_that_is_still_to_come(
    gateway: Gateway,
) -> None:
    await fill_many(gateway)
    gateway.reranker.held_up = {1}
    gateway.reranker.delay = 0.03
    response = await gateway.stub.Search(search(budget_micros=budget(0.3), limit=40))
    assert gateway.reranker.scored > 2
    assert response.reranked_count == 2, "the third and fourth were held up"
    assert sorted(hit.retrieval.rank for hit in response.hits[:2]) == [1, 2]
    assert [hit.retrieval.rank for hit in response.hits[2:]] == list(range(3, 41))


async def test_no_time_for_the_reranker_is_no_call_of_it(gateway: Gateway) -> None:
    await fill(gateway, without_lexical=True)
    response = await gateway.stub.Search(search(budget_micros=1_000))
    assert (response.mode, response.mode_reason) == (s.SEARCH_MODE_RETRIEVE, "there is no time to rerank")
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_SKIPPED, "NO_TIME")
    assert len(response.hits) == degradation.affected_count == 4
    assert gateway.reranker.calls == 0
    came = await fault(gateway.stub.Search(search(budget_micros=1_000, require_rerank=True)))
    assert isinstance(came, faults.DeadlineExceeded)
    assert came.reason == "NO_TIME_TO_RERANK"


FAILURES = [
    (faults.Unavailable("it cannot be reached"), "UNAVAILABLE"),
    (faults.Internal("it broke"), "UNAVAILABLE"),
    (faults.InvalidArgument("it does not like that"), "UNAVAILABLE"),
    (faults.ResourceExhausted("its queue is full", retry_after=0.5), "OVERLOADED"),
]


@pytest.mark.parametrize(("failure", "reason"), FAILURES)
async def test_without_the_reranker_the_order_is_that_of_retrieval_and_says_so(
    gateway: Gateway, failure: faults.Fault, reason: str
) -> None:
    await fill(gateway)
    retrieved = await gateway.stub.Search(search(mode=s.SEARCH_MODE_RETRIEVE))
    gateway.reranker.failure = failure
    response = await gateway.stub.Search(search(min_rerank_score=100.0))
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_SKIPPED, reason)
    assert failure.message in degradation.message
    assert degradation.affected_count == 4
    assert response.hits == retrieved.hits, "a least score of reranking does not judge what was not reranked"
    assert response.mode == s.SEARCH_MODE_RETRIEVE
    assert not response.reranker_fingerprint
    came = await fault(gateway.stub.Search(search(require_rerank=True)))
    assert isinstance(came, faults.Unavailable)
    assert (came.reason, came.metadata["cause"]) == ("RERANKER_UNAVAILABLE", reason)
    assert came.retry_after


async def test_a_reranker_that_fails_half_way_leaves_what_it_did(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.failure, gateway.reranker.fails_at = faults.Unavailable("gone"), 3
    response = await gateway.stub.Search(search())
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_PARTIAL, "UNAVAILABLE")
    assert (response.reranked_count, degradation.affected_count) == (6, 34)
    assert falls(response)


async def test_a_reranker_that_keeps_failing_is_given_a_pause_and_found_again(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.failure = faults.Unavailable("it cannot be reached")
    for _ in range(5):
        assert only(await gateway.stub.Search(search())).reason == "UNAVAILABLE"
    calls = gateway.reranker.calls
    response = await gateway.stub.Search(search())
    assert only(response).reason == "BREAKER_OPEN"
    assert response.mode_reason == "the reranker is not to be had"
    assert isinstance(await fault(gateway.stub.Search(search(require_rerank=True))), faults.Unavailable)
    assert gateway.reranker.calls == calls
    gateway.reranker.failure = None
    async with asyncio.timeout(5):
        while (await gateway.stub.Search(search())).degradations:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await gateway.stub.Search(search())).reranked_count == 4


async def test_a_reranker_that_never_answers_costs_no_more_than_the_budget_and_soon_nothing(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.reranker.delay = 1000
    for _ in range(5):
        began = time.perf_counter()
        response = await gateway.stub.Search(search(budget_micros=budget(0.2)))
        assert time.perf_counter() - began < 0.2 + LATE
        degradation = only(response)
        assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_SKIPPED, "UNAVAILABLE")
        assert "silent" in degradation.message
    began = time.perf_counter()
    assert only(await gateway.stub.Search(search(budget_micros=budget(5)))).reason == "BREAKER_OPEN"
    assert time.perf_counter() - began < LATE


async def test_economy_stops_when_the_first_hits_have_settled_and_that_is_no_degradation(gateway: Gateway) -> None:
    await fill_many(gateway)
    economy = {"effort": s.EFFORT_ECONOMY, "limit": 2, "query": "number7"}
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE, **economy))
    full = await gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE, limit=2, query="number7"))
    assert response.hits == full.hits
    assert response.reranked_count < full.reranked_count == 40
    assert "settled" in response.mode_reason
    assert not response.degradations


async def test_auto_reranks_all_of_a_small_collection_and_says_why(gateway: Gateway) -> None:
    await fill(gateway)
    response = await gateway.stub.Search(search(limit=2))
    assert (response.mode, response.reranked_count) == (s.SEARCH_MODE_EXHAUSTIVE, 4)
    assert response.mode_reason == "the time is enough to rerank all 4 documents"
    response = await gateway.stub.Search(search(depth=2))
    assert (response.mode, response.reranked_count) == (s.SEARCH_MODE_TWO_STAGE, 2)


async def test_exhaustive_reads_every_document_that_fits_the_filter_long_ones_too(gateway: Gateway) -> None:
    await fill_many(gateway, 30)
    await ingest(gateway, [d.Document(id="long", text="number99 " * 5_000)])
    mode = {"mode": s.SEARCH_MODE_EXHAUSTIVE, "query": "number99"}
    response = await gateway.stub.Search(search(**mode))
    assert (response.mode, response.candidate_count, response.reranked_count) == (s.SEARCH_MODE_EXHAUSTIVE, 31, 31)
    assert (response.hits[0].document.id, len(response.hits[0].document.text)) == ("long", 45_000)
    assert max(len(passage.encode()) for passage in gateway.reranker.passages) == 16 * 1024
    only_two = d.Filter(must=[d.Condition(ids=d.IdsCondition(ids=["001", "002"]))])
    assert (await gateway.stub.Search(search(filter=only_two, **mode))).reranked_count == 2
    response = await gateway.stub.Search(search(view=d.DocumentView(omit_text=True), **mode))
    assert response.reranked_count == 31
    assert not response.hits[0].document.text


async def test_long_texts_that_the_index_does_not_give_are_reported(gateway: Gateway) -> None:
    await fill(gateway)
    await ingest(gateway, [d.Document(id="long", text="cat " * 10_000)])
    gateway.index.texts_failure = faults.Unavailable("the index went away")
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE))
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_INDEX_PARTIAL, "UNAVAILABLE")
    assert degradation.affected_count == 1
    (long,) = [hit for hit in response.hits if hit.document.id == "long"]
    assert len(long.document.text) == 16 * 1024


async def test_long_texts_that_one_answer_cannot_hold_are_reported(gateway: Gateway) -> None:
    await fill(gateway)
    await ingest(gateway, [d.Document(id=f"long-{n}", text="cat " * 10_000) for n in range(3)])
    gateway.index.most_texts = 2
    response = await gateway.stub.Search(search(mode=s.SEARCH_MODE_TWO_STAGE))
    degradation = only(response)
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_INDEX_PARTIAL, "TOO_LARGE")
    assert degradation.message.endswith("because more does not fit into one answer")
    assert degradation.affected_count == 1
    lengths = [len(hit.document.text) for hit in response.hits if hit.document.id.startswith("long")]
    assert lengths == [40_000, 40_000, 16 * 1024]


async def test_a_stream_begins_with_retrieval_betters_it_and_ends_with_what_search_answers(gateway: Gateway) -> None:
    await fill_many(gateway, 12)
    request = search(mode=s.SEARCH_MODE_TWO_STAGE, limit=12)
    states = [state async for state in gateway.stub.StreamSearch(s.StreamSearchRequest(search=request))]
    assert [state.final for state in states] == [False] * (len(states) - 1) + [True]
    counts = [state.result.reranked_count for state in states]
    assert counts == [0, 2, 4, 6, 8, 10, 12, 12]
    assert [hit.retrieval.rank for hit in states[0].result.hits] == list(range(1, 13))
    assert all(falls(state.result) for state in states)
    answer = await gateway.stub.Search(request)
    last = states[-1].result
    for response in (answer, last):
        response.ClearField("timing")
    assert last == answer


async def test_a_stream_of_a_search_that_reranks_nothing_is_its_answer(gateway: Gateway) -> None:
    await fill(gateway)
    request = s.StreamSearchRequest(search=search(mode=s.SEARCH_MODE_RETRIEVE))
    (state,) = [state async for state in gateway.stub.StreamSearch(request)]
    assert state.final


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_caller_who_goes_away_stops_the_reranker(gateway: Gateway, streaming: bool) -> None:
    await fill_many(gateway)
    gateway.reranker.delay = 0.05
    if streaming:
        call = gateway.stub.StreamSearch(s.StreamSearchRequest(search=search()))
        await anext(aiter(call))
    else:
        call = gateway.stub.Search(search())  # type: ignore[assignment]
    async with asyncio.timeout(5):
        while not gateway.reranker.scored:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        await gateway.reranker.cancelled.wait()
    assert gateway.reranker.scored < 40
    gateway.reranker.delay = 0
    assert (await gateway.stub.Search(search())).reranked_count == 40, "and nothing of it is left in hand"


async def test_a_deadline_that_passed_on_the_way_is_no_work_anywhere(gateway: Gateway) -> None:
    await fill(gateway)
    gateway.now += 60
    for timeout in (0.0, -1.0):
        query = SearchQuery(collection="docs", query="cat", timeout=timeout)
        with pytest.raises(faults.DeadlineExceeded):
            await gateway.searcher.search(query)
    assert (gateway.index.retrievals, gateway.reranker.calls, gateway.embedder.queries) == ([], 0, 0)


async def test_a_search_whose_first_stages_take_longer_than_its_budget_is_late_and_not_refused(
    gateway: Gateway,
) -> None:
    await fill(gateway, without_lexical=True)
    gateway.embedder.delay = 0.1
    response = await gateway.stub.Search(search(budget_micros=budget(0.05)))
    assert len(response.hits) == 4
    assert only(response).reason == "NO_TIME"
    gateway.embedder.delay = 1000
    came = await fault(gateway.stub.Search(search(), timeout=0.3))
    assert isinstance(came, faults.DeadlineExceeded)


ONE_AT_A_TIME = SearchSettings(admission=AdmissionSettings(max_searches=1))


@pytest.mark.parametrize("gateway", [ONE_AT_A_TIME], indirect=True)
async def test_one_search_too_many_is_refused_at_once_with_the_time_to_come_back(gateway: Gateway) -> None:
    await fill_many(gateway)
    gateway.reranker.delay = 0.05
    first = gateway.stub.Search(search())
    while not gateway.reranker.scored:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    came = await fault(gateway.stub.Search(search()))
    assert time.perf_counter() - began < LATE
    assert isinstance(came, faults.ResourceExhausted)
    assert came.reason == "TOO_MANY_SEARCHES"
    assert came.retry_after
    assert (await first).reranked_count == 40
    assert (await gateway.stub.Search(search(budget_micros=budget(0.1)))).hits


SHARED_BY_FOUR = SearchSettings(admission=AdmissionSettings(sharing=4))


@pytest.mark.parametrize("gateway", [SHARED_BY_FOUR], indirect=True)
async def test_of_more_searches_than_their_time_allows_some_are_refused_and_the_others_are_in_time(
    gateway: Gateway,
) -> None:
    await fill_many(gateway)
    gateway.reranker.delay = 0.03
    for _ in range(3):
        await gateway.stub.Search(search())

    async def one() -> float | faults.Fault:
        began = time.perf_counter()
        try:
            await gateway.stub.Search(search(budget_micros=budget(0.4)))
        except grpc.aio.AioRpcError as error:
            return fault_from_rpc_error(error)
        return time.perf_counter() - began

    asked_before = gateway.embedder.queries
    came = await asyncio.gather(*(one() for _ in range(30)))
    refused = [each for each in came if isinstance(each, faults.Fault)]
    assert all(isinstance(each, faults.ResourceExhausted) and each.retry_after for each in refused)
    accepted = [each for each in came if isinstance(each, float)]
    assert refused
    assert accepted
    # At once, and not at the end of its budget: nothing was asked for one that is refused.
    assert gateway.embedder.queries - asked_before <= len(accepted)
    assert max(accepted) < 0.4 + LATE
