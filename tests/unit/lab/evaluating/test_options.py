"""The commands that read judged sets read them by the same options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from winnow_client.cli.main import main
from winnow_lab.advising.command import advise
from winnow_lab.evaluating.command import evaluate
from winnow_lab.evaluating.options import of_set, set_options
from winnow_lab.promoting.command import promote


@pytest.mark.parametrize(("command", "queries"), [(evaluate, 1000), (advise, 300), (promote, 500)])
def test_each_command_has_them_with_its_own_default(command: click.Command, queries: int) -> None:
    context = click.Context(command)
    defaults = {each.name: each.get_default(context) for each in command.params if each.name}
    assert of_set(defaults) == {"split": "test", "queries": queries, "prefix": "", "skip_missing": False}


def test_what_was_given_is_what_a_set_is_read_by() -> None:
    read: list[object] = []

    def function(**given: object) -> None:
        read.append(of_set({**given, "more": 1}))

    made: Callable[..., None] = set_options(queries=7)(function)
    CliRunner().invoke(click.command()(made), ["--split", "dev", "--prefix", "a-", "--skip-missing"])
    assert read == [{"split": "dev", "queries": 7, "prefix": "a-", "skip_missing": True}]


@pytest.mark.parametrize("command", [["evaluate"], ["advise", "--budget", "1s"]])
def test_a_running_gateway_is_not_given_models(command: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*command, str(tmp_path), "--gateway", "127.0.0.1:1", "--model", "mine"])
    assert result.exit_code == 2
    assert "a running gateway has its models" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--mixing", "nan,1,1", "k is at least 1"),
        ("--mixing", "3,inf,1", "the weights are above 0"),
        ("--fusion", "3.5,1,1", "k is a whole number"),
    ],
)
def test_constants_and_weights_are_numbers_that_are_used_as_they_are(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), option, value])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
