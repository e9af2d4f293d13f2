"""Anything may be sent to a service; it answers or refuses with a status that says why, and goes on serving.

Requests are made from the descriptors of every method of every contract. The default run is always the same one;
`make test-slow` tries others each time.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client.grpc import collections_service_pb2, points_service_pb2, qdrant_pb2

from tests.fuzz.conftest import Stack
from tests.fuzz.messages import mangled, messages
from winnow.embedder.v1 import embedder_pb2
from winnow.reranker.v1 import reranker_pb2
from winnow.search.v1 import search_service_pb2

SERVED = (
    ("gateway", search_service_pb2, "SearchService"),
    ("embedder", embedder_pb2, "EmbedderService"),
    ("reranker", reranker_pb2, "RerankerService"),
    ("index", points_service_pb2, "Points"),
    ("index", collections_service_pb2, "Collections"),
    ("index", qdrant_pb2, "Qdrant"),
)
METHODS = [
    pytest.param(service, method, id=f"{name}.{method.name}")
    for service, module, name in SERVED
    for method in module.DESCRIPTOR.services_by_name[name].methods
]
PATIENCE = 20.0
"""Seconds for one call; no answer within them counts as a hang."""
FAULTY = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


def ending(channel: grpc.Channel, method: MethodDescriptor, requests: list[bytes]) -> grpc.StatusCode:
    """The status that a call of these bytes ends with."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    sent: Any = iter(requests) if method.client_streaming else requests[0]
    began = time.monotonic()
    try:
        answer = getattr(channel, shape)(path)(sent, timeout=PATIENCE)
        if method.server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        code, said = error.code(), error.details()
    else:
        code, said = grpc.StatusCode.OK, ""
    assert time.monotonic() - began < PATIENCE - 1, f"no answer within {PATIENCE:g} s"
    assert code not in FAULTY, f"{code.name}: {said}"
    return code


def streams(method: MethodDescriptor, one: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Requests of one call: one, or as many as a stream may have."""
    most = 3 if method.client_streaming else 1
    return st.lists(one, min_size=1, max_size=most)


def fuzz(stack: Stack, service: str, method: MethodDescriptor, *, examples: int, steady: bool) -> None:
    channel = stack.channels[service]
    how = settings(
        max_examples=examples,
        deadline=None,
        derandomize=steady,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    whole = messages(method.input_type).map(lambda message: message.SerializeToString())

    @how
    @given(streams(method, whole))
    def messages_of_its_type(requests: list[bytes]) -> None:
        ending(channel, method, requests)

    @how
    @given(streams(method, mangled(method.input_type)))
    def bytes_of_any_kind(requests: list[bytes]) -> None:
        ending(channel, method, requests)

    stack.refill()
    messages_of_its_type()
    bytes_of_any_kind()
    assert stack.serving(service)


@pytest.mark.parametrize(("service", "method"), METHODS)
def test_whatever_is_sent_ends_with_a_status_that_says_why(
    stack: Stack, service: str, method: MethodDescriptor
) -> None:
    fuzz(stack, service, method, examples=20, steady=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("service", "method"), METHODS)
def test_whatever_else_is_sent_too(stack: Stack, service: str, method: MethodDescriptor) -> None:
    fuzz(stack, service, method, examples=500, steady=False)


@pytest.mark.parametrize(
    ("service", "method"),
    [param for param in METHODS if str(param.id).endswith((".Search", ".EmbedTexts", ".RerankDocuments", ".Upsert"))],
)
def test_what_is_fuzzed_reaches_the_methods(stack: Stack, service: str, method: MethodDescriptor) -> None:
    """Else all of it might be refused at the door, and prove nothing."""
    stack.refill()
    found = set()

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(messages(method.input_type))
    def look(message: Any) -> None:
        found.add(ending(stack.channels[service], method, [message.SerializeToString()]))

    look()
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= found
