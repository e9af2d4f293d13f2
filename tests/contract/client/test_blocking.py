"""What the blocking client adds to the one for asyncio: its thread, its ends, and forks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import FrameType

import pytest

from tests.contract.client.gateway_fake import FakeGateway, Served, until
from winnow_client import Client, Document
from winnow_rpc.faults import Cancelled, Fault


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt, which would end the tests."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_stream_ends_with_the_interruption_and_the_client_goes_on(blocking: Client) -> None:
    blocking.create_collection("c")
    acknowledged = threading.Event()

    async def documents() -> AsyncIterator[Document]:
        yield Document(id="1", text="x")
        await until(acknowledged.is_set)
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            await asyncio.Event().wait()
        finally:
            # What is interrupted may take a moment to end.
            await asyncio.sleep(0.2)

    with pytest.raises(Interrupted):
        for _ in blocking.ingest("c", documents()):
            acknowledged.set()
    assert blocking.get_collection("c").document_count == 1


def test_a_stream_that_is_half_read_when_the_client_is_closed_says_so_and_nothing_else(
    papers: Client, caplog: pytest.LogCaptureFixture
) -> None:
    endless = (Document(id=str(number), text="x") for number in iter(int, 1))
    ingesting = papers.ingest("papers", endless)
    listing = papers.list_documents("papers", page_size=1)
    searching = papers.stream_search("papers", "graphs")
    for stream in (ingesting, listing, searching):
        next(stream)
    papers.close()
    for stream in (ingesting, listing, searching):
        with pytest.raises(Fault) as caught:
            while True:
                next(stream)
        assert caught.value.reason == "CLIENT_CLOSED"
    assert not caplog.records


def test_calls_of_other_threads_end_with_cancelled_when_the_client_is_closed(
    served: Served, gateway: FakeGateway
) -> None:
    gateway.delay = 60
    client = Client(served.address)
    client.create_collection("c")
    ended: list[BaseException] = []

    def search() -> None:
        try:
            client.search("c", "x")
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=search, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    while gateway.calls.count("Search") < len(threads):
        assert not ended
    client.close()
    for thread in threads:
        thread.join(30)
    assert [type(each) for each in ended] == [Cancelled] * len(threads)


FORKING = """
import os, sys
from winnow_client import Client, Fault

address, used_before = sys.argv[1], sys.argv[2] == "used"
shared = Client(address)
if used_before:
    list(shared.list_collections())
if not (child := os.fork()):
    for client in (shared, Client(address)):
        try:
            print("child", len(list(client.list_collections(timeout=20))))
        except Fault as fault:
            print("child", fault.reason)
    sys.exit(0)  # in order, with all that runs at the interpreter's exit
assert os.waitpid(child, 0)[1] == 0
print("parent", len(list(shared.list_collections())))
"""


FORKING_AFTER_A_FAILURE = """
import gc, os, sys
from winnow_client import Client, Fault

gc.disable()  # what the traceback holds stays
client = Client(sys.argv[1])
try:
    client.get_document("papers", "none")
except Fault as fault:
    print("parent", type(fault).__name__, flush=True)
    kept = fault if sys.argv[2] == "kept" else None
client.close()
if not (child := os.fork()):
    try:
        Client(sys.argv[1]).get_collection("papers", timeout=20)
    except Fault as fault:
        print("child", fault.reason)
    del client
    kept = None
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


FORKING_AMID_STREAMS = """
import os, sys, threading
from winnow_client import Client, Document, Fault

client = Client(sys.argv[1])
waiting = threading.Event()

def documents():
    yield Document(id="new", text="x")
    waiting.set()
    threading.Event().wait()

def ingest():
    for _ in client.ingest("papers", documents()):
        pass

half_read = client.list_documents("papers", page_size=1)
next(half_read)
threading.Thread(target=ingest, daemon=True).start()
waiting.wait()
if not (child := os.fork()):
    for ask in (lambda: client.get_collection("papers", timeout=20), lambda: next(half_read)):
        try:
            ask()
        except Fault as fault:
            print("child", fault.reason)
    client.close()
    print("child closed", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", client.get_collection("papers").name, flush=True)
os._exit(0)
"""


def ran(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script that may fork, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"GRPC_VERBOSITY": "NONE"},
    )


@pytest.mark.parametrize(("used", "expected"), [("unused", "1"), ("used", "FORKED")])
def test_a_forked_process_uses_the_client_or_is_told_that_it_cannot(papers: Client, used: str, expected: str) -> None:
    done = ran(FORKING, papers.config.target, used)
    assert done.stdout.splitlines() == [f"child {expected}"] * 2 + ["parent 1"], done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("kept", ["kept", "forgotten"])
def test_a_process_forked_after_a_call_failed_is_told_that_it_cannot_although_the_client_was_closed(
    papers: Client, kept: str
) -> None:
    done = ran(FORKING_AFTER_A_FAILURE, papers.config.target, kept)
    assert done.stdout.splitlines() == ["parent NotFound", "child FORKED"], done.stderr
    assert done.returncode == 0


def test_a_process_forked_amid_streams_is_told_that_it_cannot_go_on_and_closes_the_client(papers: Client) -> None:
    done = ran(FORKING_AMID_STREAMS, papers.config.target)
    assert done.stdout.splitlines() == ["child FORKED", "child FORKED", "child closed", "parent papers"], done.stderr
    assert done.returncode == 0
