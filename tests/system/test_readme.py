"""Every command and snippet of the README works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNS_ELSEWHERE = {
    ". .venv/bin/activate": "the commands of this environment are on the PATH of the test",
    "git": "there is nothing to clone from in a test",
    "docker": "tests/system/containers bring the composition up",
    "winnow evaluate": "test_evaluate.py runs it, and winnow advise, on a set of its own",
    "winnow advise": "test_evaluate.py",
    "winnow train": "test_training.py",
    "winnow calibrate": "test_calibrating.py",
    "winnow promote": "tests/unit/lab/promoting",
}


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == language]


def commands() -> Iterator[str]:
    for block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield line[2:].partition(" # ")[0].strip()


def test_the_readme_is_short_enough_to_read() -> None:
    assert len(README.splitlines()) < 250


@pytest.mark.parametrize("command", [each for each in commands() if each.startswith("make")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    planned = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, check=False
    )
    assert planned.returncode == 0, planned.stderr.decode()


def test_every_command_and_snippet_runs_against_real_services(stack_address: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "WINNOW_GATEWAY": stack_address,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ran = 0
    for command in commands():
        if command.startswith(("make", "winnow up", *RUNS_ELSEWHERE)):
            continue
        result = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout.decode()}\n{result.stderr.decode()}"
        ran += 1
    assert ran >= 5, "the README shows the main commands"
    snippets = blocks("python")
    assert snippets, "the README shows the SDK"
    for shown in snippets:
        # The gateway of the tests is not where a person has it.
        snippet = shown.replace("Client()", f"Client({stack_address!r})")
        result = subprocess.run(
            [sys.executable, "-c", snippet],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, f"{snippet}\n{result.stderr.decode()}"
