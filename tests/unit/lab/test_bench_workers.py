"""Contestants in processes of their own: what they are told, what they answer, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from winnow_lab.bench_inference.workers import WorkerFailed, running_worker
from winnow_lab.peers import worker

MODULE = """
import os, subprocess, sys, time

class Contestant:
    def __init__(self):
        print("a library that prints")
    def add(self, *, one, other):
        return {"sum": one + other}
    def fail(self):
        raise ValueError("no such\\nmodel")
    def sleep(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(os.environ["PIDS"], "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    def end(self):
        print("it went wrong", file=sys.stderr)
        os._exit(3)
    def close(self):
        pass
"""


class Adder:
    """A contestant in this process."""

    closed = False

    def add(self, *, one: int, other: int) -> dict[str, Any]:
        return {"sum": one + other}

    def close(self) -> None:
        Adder.closed = True


def test_each_line_is_answered_by_one_line() -> None:
    answers = io.StringIO()
    call = json.dumps({"method": "add", "arguments": {"one": 1, "other": 2}})
    worker.serve(Adder, io.StringIO(f"{call}\n{call}\n"), answers)
    assert answers.getvalue().splitlines() == ['{"answer": {"sum": 3}}'] * 2
    assert Adder.closed


def test_a_failure_is_an_answer_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    answered = json.loads(worker.answer(Adder(), '{"method": "absent", "arguments": {}}'))
    assert answered == {"error": "AttributeError: 'Adder' object has no attribute 'absent'"}
    assert "Traceback" in capsys.readouterr().err


def test_of_several_failures_at_once_the_first_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing:
        def run(self) -> None:
            raise ExceptionGroup("unhandled", [ExceptionGroup("inner", [ValueError("the first")]), KeyError("other")])

    answered = json.loads(worker.answer(Failing(), '{"method": "run", "arguments": {}}'))
    assert answered == {"error": "ValueError: the first"}
    assert "the first" in capsys.readouterr().err


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that the worker finds, although nothing of ours is on its path."""
    (tmp_path / "contestant_fake.py").write_text(MODULE)
    monkeypatch.setattr("winnow_lab.bench_inference.workers._SCRIPT", tmp_path / "worker.py")
    (tmp_path / "worker.py").write_bytes(Path(worker.__file__).read_bytes())
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return "contestant_fake"


async def test_a_worker_answers_whatever_its_libraries_print(module: str) -> None:
    async with running_worker("fake", python=Path(sys.executable), module=module) as running:
        assert await running.call("add", one=1, other=2) == {"sum": 3}
        with pytest.raises(WorkerFailed, match=r"^fake: ValueError: no such model$"):
            await running.call("fail")
        assert await running.call("add", one=2, other=2) == {"sum": 4}


async def test_a_worker_that_ends_says_why(module: str) -> None:
    async with running_worker("fake", python=Path(sys.executable), module=module) as running:
        with pytest.raises(WorkerFailed, match=r"fake has ended: .*it went wrong"):
            await running.call("end")


async def test_an_interpreter_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match=r"fake cannot be started: .*No such file"):
        async with running_worker("fake", python=tmp_path / "python", module="x"):
            pass


async def test_a_module_that_cannot_be_loaded_is_one_sentence(module: str) -> None:
    async with running_worker("fake", python=Path(sys.executable), module="absent_contestant") as running:
        with pytest.raises(WorkerFailed, match="No module named 'absent_contestant'"):
            await running.call("add", one=1, other=1)


async def test_whatever_it_started_goes_with_a_busy_worker(module: str, tmp_path: Path) -> None:
    async with running_worker("fake", python=Path(sys.executable), module=module) as running:
        with pytest.raises(WorkerFailed, match="longer than 1 s"):
            await running.call("sleep", seconds_allowed=1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - processes end without telling us
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # One that has ended and waits to be reaped by whoever inherited it does not run.
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
