"""How addresses become what gRPC connects to."""

import pytest

from winnow_rpc.calling import Retries, grpc_target
from winnow_rpc.faults import InvalidArgument


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("127.0.0.1:50052", "127.0.0.1:50052"),
        ("reranker:50052", "reranker:50052"),
        ("dns:///reranker:50052", "dns:///reranker:50052"),
        ("127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (" 127.0.0.1:1 , 127.0.0.1:2 ", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("127.0.0.1:1,127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
    ],
)
def test_one_address_stays_as_it_is_and_several_become_a_list(addresses: str, target: str) -> None:
    assert grpc_target(addresses) == target


@pytest.mark.parametrize(
    "addresses", ["127.0.0.1:1,", "a:1,b", "127.0.0.1:1,dns:///b:2", "127.0.0.1:1,:2", "127.0.0.1:99999,127.0.0.1:1",
                  "127.0.0.1:1,[::1]:2", "no-such-host.invalid:1,127.0.0.1:1",
                  "", " ", "127.0.0.1:99999", "dns:///gateway:65536"],
)  # fmt: skip
def test_what_cannot_be_connected_to_is_refused(addresses: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        grpc_target(addresses)
    assert caught.value.reason == "BAD_ADDRESS"


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"max_attempts": 6}, {"initial_backoff_seconds": 0.0001}, {"max_backoff_seconds": -1.0},
     {"max_backoff_seconds": float("nan")}, {"max_backoff_seconds": float("inf")}],
)  # fmt: skip
def test_retries_that_grpc_would_not_take_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Retries(**wrong)  # type: ignore[arg-type]
