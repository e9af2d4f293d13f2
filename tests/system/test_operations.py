"""The runbook is true: its commands are ones that exist, its links lead somewhere, and each alert has its section."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from tests.unit.deploy.manifests import KUBECTL, of_kind, overlay, render
from winnow_client.cli.main import main
from winnow_index.restore_snapshot import RestoreSettings
from winnow_index.settings import IndexSettings
from winnow_index.take_snapshot import TakeSnapshotSettings
from winnow_rpc.settings import read_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
BACKUP = (ROOT / "docs/backup.md").read_text(encoding="utf-8")
ALERTS = ROOT / "deploy/observability/alerts.yml"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADINGS = {match.lower().replace(" ", "-") for match in re.findall(r"^#{2,3} (.+)$", TEXT, re.MULTILINE)}
MODULES = {
    "winnow_index": IndexSettings,
    "winnow_index.take_snapshot": TakeSnapshotSettings,
    "winnow_index.restore_snapshot": RestoreSettings,
}


def commands() -> Iterator[list[str]]:
    for block in BLOCK.findall(TEXT + BACKUP):
        for line in block.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), f"an operator would copy this: {line}"
            yield shlex.split(line[2:].partition(" # ")[0])


def programs(name: str) -> list[list[str]]:
    found = [command for command in commands() if command[0] == name]
    assert found, f"the runbook shows {name}"
    return found


def named(command: list[str]) -> str:
    return " ".join(command[1:])[:60]


def parse(arguments: list[str]) -> None:
    """Reads the arguments of a `winnow` command as the command would, without running it."""
    context = main.make_context("winnow", list(arguments))
    command: click.Command = main
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("command", programs("winnow"), ids=named)
def test_every_winnow_command_takes_its_arguments(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command[1] == "keys" and "keys" not in main.list_commands(click.Context(main)):
        pytest.skip("no API keys here yet")
    monkeypatch.chdir(tmp_path)
    for name in ("path.json", "inference.json", "keys.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "notes").mkdir()
    parse(command[1:])


def test_a_wrong_flag_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(["plan", "--documents", "10", "--budge", "3"])


def test_the_plans_of_the_runbook_are_made(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    made = [
        command for command in programs("winnow") if command[1] == "plan" and not {"--measured", "--probe"} & {*command}
    ]
    assert made
    for command in made:
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert "memory, while a graph is built" in ended.stdout


def _modules() -> Iterator[list[str]]:
    """What follows `python -m`, on this machine or in a container."""
    for command in commands():
        for at, word in enumerate(command[:-1]):
            if word == "-m" and command[at - 1] == "python":
                yield command[at + 1 :]


@pytest.mark.parametrize("arguments", list(_modules()), ids=lambda arguments: arguments[0])
def test_every_module_takes_its_flags(arguments: list[str]) -> None:
    read_settings(MODULES[arguments[0]], prefix="WINNOW_INDEX_", program="test", argv=arguments[1:])


# Some commands follow one that sets COMPOSE_FILE.
_COMPOSE_FILES = ["docker-compose.yml", "deploy/compose.embedded.yml"]


@pytest.mark.parametrize("command", programs("docker"), ids=named)
def test_every_composition_has_its_files_and_services(command: list[str]) -> None:
    if command[1] in ("stop", "rm"):
        assert command[-1] == "CONTAINER"
        return
    assert command[1] == "compose"
    files = [command[at + 1] for at, word in enumerate(command) if word == "-f"] or _COMPOSE_FILES
    text = "".join((ROOT / file).read_text() for file in files)
    asked = {word.partition("=")[0].partition(":")[0] for word in command} & {
        "embedder",
        "reranker",
        "gateway",
        "index",
    }
    assert asked
    for service in asked:
        assert re.search(rf"^  {service}:$", text, re.MULTILINE)


@pytest.mark.parametrize("command", programs("kubectl"), ids=named)
def test_every_kubectl_command_is_one_and_names_what_is_deployed(command: list[str]) -> None:
    verb = [word for word in command[1:] if not word.startswith("-") and word != "winnow"]
    helped = verb[:2] if verb[0] == "rollout" else verb[:1]
    asked = subprocess.run([str(KUBECTL), *helped, "--help"], capture_output=True, timeout=60, check=False)
    assert asked.returncode == 0
    assert command[1:3] == ["-n", "winnow"]
    for word in command:
        if word.startswith("deployment/"):
            assert word.removeprefix("deployment/") in of_kind(overlay("cpu"), "Deployment")
        if word == "statefulset/index" or word.removeprefix("pod/").partition(":")[0] == "index-0":
            assert "index" in of_kind(overlay("embedded"), "StatefulSet")
        if word in ("restore", "pod/restore") or word.startswith("restore:"):
            assert "restore" in of_kind(render(ROOT / "deploy/kubernetes/restore"), "Pod")
        if word.startswith("deploy/"):
            assert word == "deploy/kubernetes/restore"


def test_every_link_of_the_runbook_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT + BACKUP)
    assert len(links) > 10
    for link in links:
        path, _, anchor = link.partition("#")
        assert not path or (ROOT / "docs" / path).exists(), link
        assert path or anchor in HEADINGS, link


@pytest.mark.skipif(not ALERTS.exists(), reason="there are no alerts here yet")
def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    section = TEXT.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (.+)$", section, re.MULTILINE)) == alerts


def test_the_runbook_is_short_enough_to_be_read() -> None:
    assert len(TEXT.splitlines()) <= 300
