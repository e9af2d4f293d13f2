"""What all commands have in common: help, faults, which gateway, status, commands of others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.contract.client.commands import PYTHON, Winnow
from tests.contract.client.gateway_fake import FakeGateway, Served
from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow_client import Client, Document
from winnow_client.cli.main import COMMANDS, main, sentence_of
from winnow_rpc.faults import Internal


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


@pytest.mark.parametrize(
    ("redirection", "machine", "status", "said"),
    [
        (">/dev/full", (), 1, "Error: No space left on device.\n"),
        (">/dev/full", ("--json",), 1, "Error: No space left on device.\n"),
        (">&-", (), 0, ""),
        (">&- 2>&-", ("--json",), 0, ""),
    ],
)
def test_output_that_goes_nowhere_is_no_mistake_of_ours(
    papers: Client, served: Served, redirection: str, machine: tuple[str, ...], status: int, said: str
) -> None:
    command = [*PYTHON, "collections", "list", "--gateway", served.address, *machine]
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("machine", [(), ("--json",)])
def test_what_an_older_encoding_cannot_hold_is_escaped(
    papers: Client, served: Served, machine: tuple[str, ...]
) -> None:
    text = "\u6f22\u5b57 and \U0001f375"
    list(papers.ingest("papers", [Document(id="tea", text=text)]))
    command = [*PYTHON, "get", "papers", "tea", "--gateway", served.address, *machine]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if machine:
        assert json.loads(done.stdout)["text"] == text
    else:
        assert "\\u6f22\\u5b57 and \\U0001f375" in done.stdout
