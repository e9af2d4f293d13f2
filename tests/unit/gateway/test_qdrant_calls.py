"""What a call that the index does not answer as hoped becomes, and whether it speaks against the index."""

import time

import grpc
import pytest
from grpc.aio import Metadata

from winnow_gateway.breaking import BreakerState, CircuitBreaker
from winnow_gateway.guarding import guarded
from winnow_gateway.ports import IndexDiskFault, IndexRefused
from winnow_gateway.qdrant_calls import MessageTooLarge, as_many_as_fit, asking
from winnow_rpc.faults import Fault, Internal, Unavailable
from winnow_rpc.status import status_of

REFUSALS = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DATA_LOSS]


async def called(breaker: CircuitBreaker, code: grpc.StatusCode, trailing: Metadata | None = None) -> Fault:
    with pytest.raises(Fault) as caught:
        async with guarded(breaker, "index", 5, 1, clock=time.perf_counter), asking("c", timeout=5):
            raise grpc.aio.AioRpcError(code, Metadata(), trailing or Metadata(), details="this is why")
    return caught.value


@pytest.mark.parametrize("code", REFUSALS)
async def test_calls_that_the_index_refuses_keep_nobody_else_from_it(code: grpc.StatusCode) -> None:
    breaker = CircuitBreaker(clock=time.perf_counter)
    for _ in range(10):
        fault = await called(breaker, code)
        assert isinstance(fault, IndexRefused)
        assert fault.message == "the index refused a call: this is why"
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("reason", ["DISK_FULL", "DISK_FAILED"])
async def test_writes_for_which_the_index_has_no_room_keep_no_search_from_it(reason: str) -> None:
    breaker = CircuitBreaker(clock=time.perf_counter)
    details = status_of(Unavailable("the disk is full", reason=reason)).SerializeToString()
    for _ in range(10):
        fault = await called(breaker, grpc.StatusCode.UNAVAILABLE, Metadata(("grpc-status-details-bin", details)))
        assert isinstance(fault, IndexDiskFault)
        assert fault.message == "the index cannot do this now: the disk is full"
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("code", "kind"), [(grpc.StatusCode.INTERNAL, Internal), (grpc.StatusCode.UNAVAILABLE, Unavailable)]
)
async def test_an_index_that_fails_several_times_in_a_row_is_given_a_pause(
    code: grpc.StatusCode, kind: type[Fault]
) -> None:
    breaker = CircuitBreaker(clock=time.perf_counter)
    for _ in range(5):
        fault = await called(breaker, code)
        assert isinstance(fault, kind)
        assert not isinstance(fault, IndexRefused)
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(("room", "asked"), [(9, [8]), (8, [8]), (3, [8, 4, 2]), (1, [8, 4, 2, 1])])
async def test_a_call_that_is_too_much_for_a_message_is_halved_until_it_fits(room: int, asked: list[int]) -> None:
    counts: list[int] = []

    async def ask(count: int) -> str:
        counts.append(count)
        if count > room:
            raise MessageTooLarge("too much")
        return "answer"

    assert await as_many_as_fit(ask, 8) == (asked[-1], "answer")
    assert counts == asked


async def test_one_thing_alone_that_is_too_much_for_a_message_is_said_to_be() -> None:
    async def ask(count: int) -> None:
        raise MessageTooLarge("too much")

    with pytest.raises(MessageTooLarge):
        await as_many_as_fit(ask, 5)
