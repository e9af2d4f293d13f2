"""Re-embedding through the SDK and the command: how far it is, what ends it, and how it goes on."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow_client import AsyncClient, Client, Document, ReembedPhase, ReembedProgress
from winnow_client.cli.main import main
from winnow_client.cli.reembed_progress import resumed
from winnow_rpc.faults import NotFound, Unavailable

Winnow = Callable[..., Result]


@pytest.fixture
def winnow(served: Served) -> Winnow:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env={"WINNOW_GATEWAY": served.address})

    return run


@pytest.fixture
def papers(blocking: Client) -> Client:
    blocking.create_collection("papers")
    assert len(list(blocking.ingest("papers", [Document(id=id_, text=id_) for id_ in "abc"]))) == 3
    return blocking


def progress(done: int, *, complete: bool = False) -> ReembedProgress:
    return ReembedProgress(
        phase=ReembedPhase.SWITCHED if complete else ReembedPhase.EMBEDDING,
        embedded_document_count=done,
        document_count=3,
        embedder_fingerprint="cd" * 32,
        former_embedder_fingerprint="ab" * 32,
        complete=complete,
    )


async def test_progress_comes_as_values_and_ends_complete(client: AsyncClient, papers: Client) -> None:
    came = [each async for each in client.reembed_collection("papers")]
    assert came == [*(progress(done) for done in range(4)), progress(3, complete=True)]
    assert (await client.get_collection("papers")).embedder_fingerprint == "cd" * 32


def test_the_options_reach_the_gateway_and_no_deadline_does(papers: Client, gateway: FakeGateway) -> None:
    list(papers.reembed_collection("papers", keep_former=True))
    list(papers.reembed_collection("papers", discard=True))
    first, second = gateway.requests[-2:]
    assert (first.keep_former, first.discard, second.keep_former, second.discard) == (True, False, False, True)
    assert gateway.deadlines[-2:] == [None, None]


def test_a_collection_that_is_not_there_is_named(blocking: Client) -> None:
    with pytest.raises(NotFound, match="nope"):
        list(blocking.reembed_collection("nope"))


def test_the_command_says_what_was_done(winnow: Winnow, papers: Client) -> None:
    ended = winnow("collections", "reembed", "papers")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == "Re-embedded papers: 3 documents answer with the vectors of cdcdcdcdcdcd.\n"
    assert "3 of 3 documents" in ended.stderr
    again = winnow("collections", "reembed", "papers")
    assert again.stdout == "papers answers with the vectors of this model: nothing was embedded.\n"


def test_the_command_writes_each_step_as_json(winnow: Winnow, papers: Client) -> None:
    lines = [json.loads(line) for line in winnow("collections", "reembed", "papers", "--json").stdout.splitlines()]
    assert [line["embedded_document_count"] for line in lines] == [0, 1, 2, 3, 3]
    assert [line["complete"] for line in lines] == [False] * 4 + [True]
    assert lines[-1]["phase"] == "switched"


def test_the_command_goes_on_where_the_gateway_broke_off(
    winnow: Winnow, papers: Client, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow_client.cli.reembed_progress._PAUSE_SECONDS", 0.01)
    gateway.reembeddings_broken = 1
    ended = winnow("collections", "reembed", "papers")
    assert ended.exit_code == 0, ended.output
    assert "goes on when it can" in ended.stderr
    assert gateway.calls.count("ReembedCollection") == 2


def test_contradicting_options_are_refused(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    ended = winnow("collections", "reembed", "papers", "--keep-former", "--discard")
    assert ended.exit_code == 2
    assert "ReembedCollection" not in gateway.calls


def test_a_gateway_that_stays_away_is_given_up() -> None:
    now = [0.0]
    said: list[str] = []

    def call() -> Iterator[ReembedProgress]:
        if not said:
            yield progress(1)
        raise Unavailable("it is away")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(Unavailable):
        list(resumed(call, say=said.append, clock=lambda: now[0], sleep=sleep))
    assert 60 < now[0] < 63


def test_a_gateway_that_was_never_there_is_not_waited_for() -> None:
    def call() -> Iterator[ReembedProgress]:
        raise Unavailable("it is away")
        yield

    with pytest.raises(Unavailable):
        list(resumed(call, say=pytest.fail, sleep=pytest.fail))


def test_a_terminal_sees_a_bar(papers: Client, served: Served, gateway: FakeGateway) -> None:
    gateway.reembed_delay = 0.1
    here, there = pty.openpty()
    try:
        command = [sys.executable, "-W", "error", "-m", "winnow_client.cli.main", "collections", "reembed", "papers"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        done = subprocess.run(
            [*command, "--gateway", served.address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=there,
            env=environment,
            timeout=30,
            check=False,
        )
        drawn = os.read(here, 65536).decode()
    finally:
        os.close(here)
        os.close(there)
    assert done.returncode == 0, drawn
    assert done.stdout.startswith(b"Re-embedded papers: 3 documents")
    assert "papers" in drawn
    assert "/3" in drawn
