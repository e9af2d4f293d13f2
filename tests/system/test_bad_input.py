"""Clients that mean no good, or know no better, at the gateway of a real stack: everybody else is served meanwhile."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.system.running import Up
from winnow.embedder.v1.embedder_pb2 import INPUT_TYPE_PASSAGE, EmbedOptions, StreamEmbedTextsRequest
from winnow.search.v1.documents_pb2 import IngestDocumentsRequest, IngestHeader
from winnow_client import Client, Document

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How an HTTP/2 client begins: the preface, and settings that change nothing."""
HEADERS = b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"
"""The beginning of a call's headers, whose rest never comes."""
IDLE = 10_000
SEARCH = "/winnow.search.v1.SearchService/Search"
INGEST = "/winnow.search.v1.SearchService/IngestDocuments"
EMBED = "/winnow.embedder.v1.EmbedderService/StreamEmbedTexts"


@pytest.fixture(scope="module")
def collection(up: Up) -> Iterator[str]:
    """A collection with something to find, deleted again: tests share the stack."""
    with Client(up.addresses["gateway"]) as client:
        client.create_collection("disturbed")
        assert len(list(client.ingest("disturbed", [Document(id="a", text="tea is made of leaves")]))) == 1
        yield "disturbed"
        client.delete_collection("disturbed")


@contextmanager
def searching(address: str, collection: str) -> Iterator[None]:
    """Searches over a connection of its own until the end, and fails if one of them does, or if there were none."""
    stopping, done, failed = threading.Event(), [0], list[Exception]()

    def search() -> None:
        with Client(address) as client:
            while not stopping.is_set():
                try:
                    found = client.search(collection, "what is tea made of?", timeout=20)
                except Exception as error:
                    failed.append(error)
                    return
                assert found.hits[0].document.id == "a"
                done[0] += 1
                time.sleep(0.01)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield
        # One that began when all of it was there.
        seen, deadline = done[0], time.monotonic() + 40
        while done[0] < seen + 2 and not failed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert failed or done[0] >= seen + 2
    finally:
        stopping.set()
        thread.join(30)
    assert not failed, failed


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ending(address: str, request: bytes) -> grpc.StatusCode:
    """How a search of these bytes ends."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SEARCH)(request, timeout=60)
        return caught.value.code()


def stream_ending(address: str, method: str, requests: Iterable[bytes]) -> grpc.StatusCode:
    """How a stream of these messages ends."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(method)(iter(requests), timeout=60))
        return caught.value.code()


def test_a_message_of_100_mb_is_refused_and_logged_once(up: Up, collection: str) -> None:
    before = up.position()
    with searching(up.addresses["gateway"], collection):
        assert ending(up.addresses["gateway"], bytes(100_000_000)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    up.wait_for("call", after=before, seconds=20, reason="MESSAGE_REFUSED")
    assert len([e for e in up.events("call", after=before) if e.get("reason") == "MESSAGE_REFUSED"]) == 1


@pytest.mark.parametrize(
    ("service", "method", "first"),
    [
        ("gateway", INGEST, IngestDocumentsRequest(header=IngestHeader(collection="disturbed"))),
        ("embedder", EMBED, StreamEmbedTextsRequest(options=EmbedOptions(input_type=INPUT_TYPE_PASSAGE))),
    ],
)
def test_a_message_of_100_mb_in_a_stream_is_refused_and_logged_once(
    up: Up, collection: str, service: str, method: str, first: IngestDocumentsRequest | StreamEmbedTextsRequest
) -> None:
    before = up.position()
    sent = (first.SerializeToString(), bytes(100_000_000))
    with searching(up.addresses["gateway"], collection):
        assert stream_ending(up.addresses[service], method, sent) is grpc.StatusCode.RESOURCE_EXHAUSTED
    event = up.wait_for("call", after=before, seconds=20, reason="MESSAGE_REFUSED")
    assert (event["service"], event["method"]) == (service, method)
    assert len([e for e in up.events("call", after=before) if e.get("reason") == "MESSAGE_REFUSED"]) == 1


def test_a_malformed_message_is_invalid_and_logged_once(up: Up, collection: str) -> None:
    before = up.position()
    with searching(up.addresses["gateway"], collection):
        assert ending(up.addresses["gateway"], b"\xff\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT
    event = up.wait_for("call", after=before, seconds=20, reason="MALFORMED")
    assert event["code"] == "INVALID_ARGUMENT"
    assert len([e for e in up.events("call", after=before) if e.get("reason") == "MALFORMED"]) == 1


def test_slow_loris_clients_hold_up_nobody(up: Up, collection: str) -> None:
    """Some say nothing, some stop in the greeting, some in the headers of a call; all trickle a byte now and then."""
    address = up.addresses["gateway"]
    with ExitStack() as sockets, searching(address, collection):
        loris = [sockets.enter_context(connect(address)) for _ in range(300)]
        for position, each in enumerate(loris):
            each.sendall((b"", GREETING[:10], GREETING + HEADERS)[position % 3])
        for _ in range(3):
            time.sleep(0.3)
            for each in loris[2::3]:
                each.sendall(b"\x00")


def test_10_000_idle_connections_hold_up_nobody(up: Up, collection: str) -> None:
    address = up.addresses["gateway"]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # The gateway has the same limit; what both need beside is little.
    wanted = IDLE if most == resource.RLIM_INFINITY else min(IDLE, most - 500)
    if wanted < 1000:
        pytest.skip(f"{most} open files are all that is allowed here")
    memory = resident(up.pid("gateway"))
    try:
        with ExitStack() as sockets, searching(address, collection):
            for _ in range(wanted):
                sockets.enter_context(connect(address)).sendall(GREETING)
            with Client(address) as client:
                assert client.search(collection, "tea").hits
            grown = resident(up.pid("gateway")) - memory
        assert grown < wanted * 60 * 1024, f"{wanted} connections took {grown / 1e6:.0f} MB"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
