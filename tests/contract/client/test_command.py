from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_client import Client, Document
from winnow_client.cli.main import COMMANDS, main, sentence_of
from winnow_rpc.faults import Internal

Winnow = Callable[..., Result]
PYTHON = [sys.executable, "-W", "error", "-m", "winnow_client.cli.main"]

DOCUMENTS = [
    Document(id="a", title="Graphs", text="graphs of small worlds", metadata={"year": 2016, "lang": "en"}),
    Document(id="b", title="Words", text="weights of words", metadata={"year": 1994, "lang": "en"}),
    Document(id="c", title="", text="graphs have no title here", metadata={"year": 1967, "lang": "de"}),
]


@pytest.fixture
def winnow(served: Served) -> Winnow:
    def run(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Result:
        environment.setdefault("WINNOW_GATEWAY", served.address)
        return CliRunner().invoke(main, arguments, input=stdin, env=environment)

    return run


@pytest.fixture
def papers(blocking: Client) -> Client:
    blocking.create_collection("papers", description="on graphs")
    assert len(list(blocking.ingest("papers", DOCUMENTS))) == 3
    return blocking


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


OURS = [pytest.param(path, command, id=" ".join(path)) for path, command in commands(main)]


@pytest.mark.parametrize(("path", "command"), OURS)
def test_the_help_of_every_command_has_an_example_of_it(path: tuple[str, ...], command: click.Command) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    _, _, example = result.stdout.partition("Example")
    assert f"winnow {' '.join(path)}" in " ".join(example.split())


@pytest.mark.parametrize(("path", "command"), OURS)
def test_every_command_can_be_told_of_gateway_timeout_and_json(path: tuple[str, ...], command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    # These start what they need themselves.
    alone = path[0] in ("up", "demo", "bench", "calibrate", "keys", "train", "promote")
    asks = {"--json"} if alone else {"--json", "--gateway", "--timeout", "--tls-ca", "--api-key-file"}
    assert options >= asks or path in (("bench",), ("keys",), ("train",))


def test_the_help_lists_every_command_without_loading_it() -> None:
    result = CliRunner().invoke(main, ["--help"])
    for name, (_, summary) in COMMANDS.items():
        assert name in result.stdout
        assert summary in result.stdout


def test_a_search_shows_both_stages_and_where_the_time_went(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "small graphs")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "retrieved" in lines[1]
    assert "reranked" in lines[1]
    [first] = [line for line in lines if "Graphs" in line]
    assert first.split()[:3] == ["1", "Graphs", "a"]
    assert first.split()[-7:] == ["4", "6", "1", "0.2000", "1", "2.0000", "50%"]
    [other] = [line for line in lines if "Words" in line]
    assert other.split()[-7:-5] == ["6", "–"], "BM25 did not find it"
    assert "graphs of small worlds" in result.stdout
    how, _, spent = lines[-1].partition(" (")
    assert how == "two-stage, hybrid: 3 candidates, 3 reranked, 4.2 ms"
    assert spent == "embed 1.1 ms, retrieve 0.9 ms, rerank 2.0 ms, gateway 0.2 ms)"
    assert result.stderr == ""


def test_a_search_for_machines_is_one_object(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "graphs", "--mode", "retrieve", "--json")
    [line] = result.stdout.splitlines()
    answer = json.loads(line)
    assert answer["mode"] == "retrieve"
    assert answer["hits"][0]["document"] == {
        "id": "a",
        "title": "Graphs",
        "text": "graphs of small worlds",
        "metadata": {"year": 2016, "lang": "en"},
    }
    assert answer["hits"][0]["rerank"] is None
    assert answer["timing"]["total_micros"] == 4200


def test_every_option_of_a_search_reaches_the_gateway(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    options = (
        "--limit 2 --retrieval dense --depth 7 --ef 99 --exact --ranking reranker --min-score 0.5 --min-rerank-score -2"
        " --min-probability 0.5 --budget 200ms --depth-policy floor --effort economy --require-rerank"
    )
    result = winnow("search", "papers", "graphs", *options.split(), "--where", "year>=1990", "--where", "lang=en")
    assert result.exit_code == 0, result.stderr
    request = gateway.requests[-1]
    assert (request.limit, request.depth, request.mode, request.ranking_policy) == (2, 7, 5, 1)
    assert (request.budget_micros, request.depth_policy, request.effort) == (200_000, 2, 2)
    assert request.require_rerank
    assert (request.retrieval.ef, request.retrieval.exact, request.retrieval.kind) == (99, True, 1)
    assert (request.min_retrieval_score, request.min_rerank_score) == (0.5, -2)
    assert request.min_probability == 0.5
    assert [condition.WhichOneof("condition") for condition in request.filter.must] == ["range", "match"]


@pytest.mark.parametrize(
    ("written", "micros"), [("200ms", 200_000), ("1.5s", 1_500_000), ("2", 2_000_000), (".5 s", 500_000), ("1m", 6e7)]
)
def test_a_budget_is_written_as_people_write_times(
    winnow: Winnow, papers: Client, gateway: FakeGateway, written: str, micros: int
) -> None:
    assert winnow("search", "papers", "graphs", "--budget", written).exit_code == 0
    assert gateway.requests[-1].budget_micros == micros


@pytest.mark.parametrize("written", ["0", "0ms", "-5ms", "soon", "1 parsec", "nan", "inf", ""])
def test_what_is_no_time_is_refused_with_an_example(winnow: Winnow, papers: Client, written: str) -> None:
    result = winnow("search", "papers", "graphs", "--budget", written)
    assert result.exit_code == 2
    assert "is no time" in result.stderr


def test_a_watched_search_is_one_state_a_line_for_machines_and_the_last_one_in_a_file(
    winnow: Winnow, papers: Client
) -> None:
    result = winnow("search", "papers", "graphs", "--stream", "--json")
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert [state["final"] for state in states] == [False, True]
    assert [state["result"]["reranked_count"] for state in states] == [0, 3]
    watched, plain = winnow("search", "papers", "graphs", "--stream"), winnow("search", "papers", "graphs")
    assert watched.exit_code == 0
    assert watched.stdout.split() == plain.stdout.split()


def test_words_alone_are_searched_by_their_mode(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "graphs", "--mode", "lexical")
    assert result.stdout.splitlines()[-1].startswith("lexical: 3 candidates, 0 reranked")
    assert winnow("search", "papers", "graphs", "--retrieval", "lexical").exit_code == 2


def test_the_query_can_come_from_standard_input(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    assert winnow("search", "papers", "-", stdin="what are graphs?\n").exit_code == 0
    assert gateway.requests[-1].query == "what are graphs?\n"
    refused = winnow("search", "papers", "-", stdin=b"\xff")
    assert (refused.exit_code, "not UTF-8" in refused.stderr) == (2, True)


def test_what_is_less_than_asked_for_is_said(winnow: Winnow, papers: Client) -> None:
    result = winnow("search", "papers", "long " * 300)
    assert result.stdout.splitlines()[-1] == "Less than asked for: the query was cut (TOO_LONG)"
    assert "Nothing was found." in winnow("search", "papers", "graphs", "--where", "year>3000").stdout


def test_a_document_cannot_steer_the_terminal(winnow: Winnow, papers: Client) -> None:
    evil = Document(id="evil\x1b[2J", title="\x1b]0;title\x07 [bold]x[/bold]", text="\x1b[31mred\x9b")
    assert len(list(papers.ingest("papers", [evil]))) == 1
    for arguments in (("search", "papers", "red"), ("get", "papers", evil.id), ("documents", "papers")):
        result = winnow(*arguments)
        assert result.exit_code == 0
        assert "[bold]x[/bold]" in result.stdout
        assert not {"\x1b", "\x07", "\x9b"} & set(result.stdout)


def test_a_document_is_shown(winnow: Winnow, papers: Client) -> None:
    shown = winnow("get", "papers", "a").stdout
    for part in ("Graphs", "a, written 2024-05-01 12:30:00 UTC", "year: 2016", 'lang: "en"', "graphs of small worlds"):
        assert part in shown
    assert json.loads(winnow("get", "papers", "a", "--json").stdout) == {
        "id": "a",
        "title": "Graphs",
        "text": "graphs of small worlds",
        "metadata": {"year": 2016, "lang": "en"},
        "update_time": "2024-05-01T12:30:00Z",
    }


def test_documents_are_listed(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    listed = winnow("documents", "papers", "--limit", "2").stdout
    assert "There are more than these 2" in listed
    assert ("Graphs" in listed, "no title" in listed) == (True, False)
    assert gateway.requests[-1].page_size == 3
    lines = winnow("documents", "papers", "--where", "lang=en", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert "There are no such documents" in winnow("documents", "papers", "--where", "lang=fr").stdout


def test_documents_are_deleted_by_id_without_a_question(winnow: Winnow, papers: Client) -> None:
    assert winnow("delete", "papers", "a", "unknown").stdout == "Deleted 1 document from papers.\n"
    assert json.loads(winnow("delete", "papers", "b", "--json").stdout) == {
        "collection": "papers",
        "deleted_document_count": 1,
    }


def test_deleting_by_filter_needs_yes_where_nobody_can_answer(winnow: Winnow, papers: Client) -> None:
    refused = winnow("delete", "papers", "--where", "year<2000")
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr
    assert papers.get_collection("papers").document_count == 3
    assert winnow("delete", "papers", "--where", "year<2000", "--yes").stdout == "Deleted 2 documents from papers.\n"


@pytest.mark.parametrize("arguments", [("delete", "papers"), ("delete", "papers", "a", "--where", "year<2000")])
def test_deleting_needs_ids_or_a_filter_and_not_both(
    winnow: Winnow, papers: Client, arguments: tuple[str, ...]
) -> None:
    refused = winnow(*arguments)
    assert (refused.exit_code, "one of the two" in refused.stderr) == (2, True)
    assert papers.get_collection("papers").document_count == 3


@pytest.mark.parametrize(("answer", "status", "left"), [(b"y\n", 0, 0), (b"n\n", 130, 1)])
def test_deleting_a_collection_asks_whoever_sits_at_the_terminal(
    papers: Client, served: Served, answer: bytes, status: int, left: int
) -> None:
    here, there = pty.openpty()
    try:
        os.write(here, answer)
        command = [*PYTHON, "collections", "delete", "papers", "--gateway", served.address]
        done = subprocess.run(command, stdin=there, capture_output=True, text=True, timeout=30, check=False)
    finally:
        os.close(here)
        os.close(there)
    assert "Delete the collection 'papers' and its 3 documents? [y/N]" in done.stderr
    assert (done.returncode, len(list(papers.list_collections()))) == (status, left)


def test_collections_are_made_shown_listed_and_deleted(winnow: Winnow, gateway: FakeGateway) -> None:
    made = winnow("collections", "create", "notes", "--metadata-field", "author.name:keyword", "--m", "32")
    assert made.stdout.startswith("Created notes, for vectors of 3 components by words and for BM25 (english, 128 ")
    assert (gateway.requests[-1].hnsw.m, gateway.requests[-1].hnsw.ef_construct) == (32, 0)
    shown = winnow("collections", "show", "notes").stdout
    assert ("author.name (keyword)" in shown, "2024-05-01 12:00:00 UTC" in shown) == (True, True)
    assert json.loads(winnow("collections", "show", "notes", "--json").stdout)["metadata_fields"] == [
        {"key": "author.name", "type": "keyword"}
    ]
    assert winnow("collections", "create", "more").exit_code == 0
    assert [json.loads(line)["name"] for line in winnow("collections", "list", "--json").stdout.splitlines()] == [
        "more",
        "notes",
    ]
    assert "notes" in winnow("collections", "list").stdout
    assert winnow("collections", "delete", "notes").exit_code == 2
    assert winnow("collections", "delete", "notes", "--yes").stdout == "Deleted notes and its 0 documents.\n"
    assert winnow("collections", "delete", "more", "--yes", "--json").exit_code == 0
    assert "There are no collections." in winnow("collections", "list").stdout


def test_a_collection_may_have_bm25_in_a_language_or_not_at_all(winnow: Winnow, gateway: FakeGateway) -> None:
    assert winnow("collections", "create", "a", "--language", "german", "--average-words", "20").exit_code == 0
    assert "german, 20 words on average" in winnow("collections", "show", "a").stdout
    made = winnow("collections", "create", "b", "--without-lexical")
    assert made.stdout == "Created b, for vectors of 3 components by words.\n"
    assert "none" in winnow("collections", "show", "b").stdout
    assert json.loads(winnow("collections", "show", "b", "--json").stdout)["lexical"] is None
    both = winnow("collections", "create", "c", "--without-lexical", "--language", "german")
    assert (both.exit_code, "goes with neither" in both.stderr) == (2, True)
    assert list(gateway.held) == ["a", "b"]


@pytest.mark.parametrize("field", ["year", "year:number", ":integer"])
def test_a_metadata_field_needs_a_type_that_exists(winnow: Winnow, field: str) -> None:
    refused = winnow("collections", "create", "c", "--metadata-field", field)
    assert (refused.exit_code, "is no NAME:TYPE" in refused.stderr) == (2, True)


def test_a_fault_is_one_sentence_and_status_1(winnow: Winnow) -> None:
    result = winnow("collections", "show", "absent")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: there is no collection 'absent' (COLLECTION_NOT_FOUND).\n"


@pytest.mark.parametrize(
    "arguments",
    [("collections", "list"), ("search", "c", "q"), ("get", "c", "i"), ("delete", "c", "i"), ("status",)],
)
def test_a_gateway_that_is_not_there_is_one_sentence_that_says_what_to_do(
    winnow: Winnow, arguments: tuple[str, ...]
) -> None:
    result = winnow(*arguments, "--gateway", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: there is no gateway at 127.0.0.1:1: start one with `winnow up`")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("serach",),
        ("search",),
        ("search", "c", "q", "--limit", "0"),
        ("search", "c", "q", "--mode", "best"),
        ("search", "c", "q", "--where", "=2"),
        ("search", "c", "q", "--timeout", "0"),
        ("ingest", "c"),
        ("ingest", "c", "/no/such/file.jsonl"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(winnow: Winnow, arguments: tuple[str, ...]) -> None:
    result = winnow(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_mistake_of_ours_is_one_sentence_too() -> None:
    assert sentence_of(KeyError("x\ny")) == "a mistake of ours, KeyError: 'x\\ny' (WINNOW_DEBUG=1 shows where)."
    assert sentence_of(Internal("internal error; the log holds it", reason="INTERNAL")).endswith("(INTERNAL).")


def test_a_call_that_takes_too_long_is_one_sentence(winnow: Winnow, papers: Client, gateway: FakeGateway) -> None:
    gateway.delay = 20
    result = winnow("search", "papers", "graphs", "--timeout", "0.2")
    assert result.exit_code == 1
    assert "did not answer within 0.2 seconds" in result.stderr


def test_the_gateway_can_be_named_in_three_places_and_the_nearest_wins(winnow: Winnow, served: Served) -> None:
    nowhere, here = "127.0.0.1:1", served.address
    list_ = ("collections", "list")
    assert winnow(*list_, WINNOW_GATEWAY=here).exit_code == 0
    assert winnow("--gateway", here, *list_, WINNOW_GATEWAY=nowhere).exit_code == 0
    assert winnow(*list_, "--gateway", here, WINNOW_GATEWAY=nowhere).exit_code == 0
    assert winnow("--gateway", nowhere, *list_, "--gateway", here).exit_code == 0
    assert winnow("--gateway", here, *list_, "--gateway", nowhere).exit_code == 1


def test_json_can_be_asked_for_before_the_command(winnow: Winnow, papers: Client) -> None:
    assert json.loads(winnow("--json", "collections", "list").stdout)["name"] == "papers"


def test_status_shows_the_gateway_and_the_collections(winnow: Winnow, papers: Client, served: Served) -> None:
    result = winnow("status")
    assert result.exit_code == 0
    for part in (served.address, "SERVING", "papers", "words"):
        assert part in result.stdout
    answer = json.loads(winnow("status", "--json").stdout)
    assert answer["serving"] is True
    assert [each["service"] for each in answer["services"]] == ["gateway"]
    assert answer["collections"][0]["document_count"] == 3


def test_status_asks_the_services_that_are_named(winnow: Winnow, served: Served) -> None:
    class Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
        async def GetModel(self, request: object, context: object) -> embedder_pb2.GetModelResponse:
            engine = embedder_pb2.Engine(name="torch", device="cpu", dtype="float32")
            return embedder_pb2.GetModelResponse(
                model=embedder_pb2.Model(id="mini", fingerprint="cd" * 32, engine=engine)
            )

    embedder = Served(
        lambda server: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(Embedder(), server),  # type: ignore[abstract]
        names=("winnow.embedder.v1.EmbedderService",),
    )
    embedder.start()
    try:
        result = winnow("status", "--embedder", embedder.address)
        assert result.exit_code == 0
        for part in ("mini", "cdcdcdcdcdcd", "torch cpu float32"):
            assert part in result.stdout
    finally:
        embedder.shut()
    gone = winnow("status", "--embedder", embedder.address, "--json")
    assert gone.exit_code == 1
    assert json.loads(gone.stdout)["services"][1]["status"] == "UNREACHABLE"


def test_status_fails_while_the_gateway_cannot_do_its_work(served: Served, winnow: Winnow) -> None:
    served.stop()
    served.healthy = False
    served.start()
    result = winnow("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["services"][0]["status"] == "NOT_SERVING"


def test_a_distribution_can_add_a_command_but_not_replace_one(tmp_path: Path) -> None:
    (tmp_path / "plugged.py").write_text(
        "import click\n@click.command()\ndef hello():\n    click.echo('plugged in')\nnothing = 7\n"
    )
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[winnow.commands]\nhello = plugged:hello\nsearch = plugged:hello\nbroken = absent:x\nodd = plugged:nothing\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [*PYTHON, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    assert run("hello").stdout == "plugged in\n"
    assert "From plug." in run("--help").stdout
    assert "COLLECTION QUERY" in run("search", "--help").stdout
    broken = run("broken")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)
    assert "the command 'broken' cannot be loaded" in broken.stderr
    assert "is no click command" in run("odd").stderr


def test_a_reader_that_goes_away_is_no_accident(papers: Client, served: Served) -> None:
    many = (Document(id=f"{number:05}", text="words " * 200) for number in range(300))
    assert len(list(papers.ingest("papers", many))) == 300
    command = [*PYTHON, "documents", "papers", "--json", "--gateway", served.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 1
