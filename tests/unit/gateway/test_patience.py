"""Bulk work waits for what may pass, and for nothing else."""

import grpc
import pytest
from grpc.aio import Metadata

from winnow_gateway.patience import persist
from winnow_gateway.qdrant_calls import asking
from winnow_rpc.faults import Fault, Internal, ResourceExhausted, Unavailable


class Backend:
    """Answers after so many faults."""

    def __init__(self, *faults: Fault) -> None:
        self.calls = 0
        self._faults = list(faults)

    async def call(self) -> str:
        self.calls += 1
        if self._faults:
            raise self._faults.pop(0)
        return "done"


@pytest.mark.parametrize("fault", [Unavailable("gone"), ResourceExhausted("busy", reason="INDEX_OVERLOADED")], ids=str)
async def test_what_may_pass_is_waited_for(fault: Fault) -> None:
    backend = Backend(fault)
    assert await persist(backend.call, seconds=60, work="test") == "done"
    assert backend.calls == 2


async def too_large_for_a_message() -> Fault:
    """What an answer of the index becomes that gRPC does not let through."""
    with pytest.raises(ResourceExhausted) as caught:
        async with asking("docs", timeout=60):
            raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), Metadata(), "larger than max")
    return caught.value


async def test_what_is_too_large_for_a_message_of_the_index_is_not_asked_for_again() -> None:
    backend = Backend(await too_large_for_a_message())
    with pytest.raises(ResourceExhausted, match="larger than max"):
        await persist(backend.call, seconds=60, work="test")
    assert backend.calls == 1


@pytest.mark.parametrize("fault", [ResourceExhausted("much", reason="REQUEST_TOO_LARGE"), Internal("broken")], ids=str)
async def test_what_waiting_does_not_mend_is_not_asked_for_again(fault: Fault) -> None:
    backend = Backend(fault)
    with pytest.raises(type(fault)):
        await persist(backend.call, seconds=60, work="test")
    assert backend.calls == 1
