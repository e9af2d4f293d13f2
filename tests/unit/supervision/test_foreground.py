from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.supervision.conftest import FAKES, Switches

pytestmark = pytest.mark.timeout(90)
FOREGROUND = Path(__file__).with_name("foreground.py")


class Foreground:
    """The supervisor as a process of its own session, whose every descendant can be found."""

    def __init__(self, data: Path, switches: Switches, *, machine: bool = True, drain_seconds: float = 2.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FOREGROUND), str(data), *(["--json"] if machine else [])],
            env={
                **os.environ,
                "FAKE_SWITCHES": str(switches.directory),
                "PYTHONPATH": str(FAKES),
                "DRAIN_SECONDS": str(drain_seconds),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.pids: list[int] = []

    def read_until(self, needle: str) -> str:
        """Reads its output up to the line that contains the needle, and returns that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if needle in line:
                return line
        raise AssertionError(f"{needle!r} never came:\n{''.join(self.lines)}")

    def ready(self) -> dict[str, Any]:
        """Waits until it says that all are serving."""
        event: dict[str, Any] = json.loads(self.read_until('"event": "ready"'))
        self.pids = list(event["pids"].values())
        return event

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: a signal to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def events(self) -> list[dict[str, Any]]:
        """Everything that it wrote until its end."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def foregrounds() -> Iterator[list[Foreground]]:
    """Those that a test started; they are killed when it ends."""
    started: list[Foreground] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()
        if each.process.stdout:
            each.process.stdout.close()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: list[int], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("stop", ["interrupt", "terminate"])
def test_a_signal_drains_the_gateway_first_and_the_index_last_and_the_exit_status_is_0(
    stop: str, tmp_path: Path, switches: Switches, foregrounds: list[Foreground]
) -> None:
    foregrounds.append(up := Foreground(tmp_path / "data", switches))
    up.ready()
    if stop == "interrupt":
        up.interrupt()
    else:
        up.process.terminate()
    assert up.process.wait(timeout=30) == 0
    events = up.events()
    draining = [event["service"] for event in events if event["event"] == "draining"]
    assert (draining[0], draining[-1]) == ("gateway", "index")
    assert len(draining) == 4
    assert events[-1]["event"] == "stopped"
    assert gone(up.pids)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, switches: Switches, foregrounds: list[Foreground]) -> None:
    switches.on("deaf.gateway")
    foregrounds.append(up := Foreground(tmp_path / "data", switches, drain_seconds=60))
    up.ready()
    time.sleep(0.5)
    up.interrupt()
    up.read_until('"event": "stopping"')
    began = time.monotonic()
    up.interrupt()
    assert up.process.wait(timeout=30) == 130
    assert time.monotonic() - began < 10
    assert gone(up.pids)


def test_ctrl_c_while_starting_stops_what_has_been_started(
    tmp_path: Path, switches: Switches, foregrounds: list[Foreground]
) -> None:
    switches.on("unwell.embedder")
    foregrounds.append(up := Foreground(tmp_path / "data", switches))
    up.read_until('"event": "listening"')
    up.interrupt()
    assert up.process.wait(timeout=30) == 0
    assert up.events()[-1]["event"] == "stopped"


def test_killing_the_supervisor_leaves_no_service_behind(
    tmp_path: Path, switches: Switches, foregrounds: list[Foreground]
) -> None:
    foregrounds.append(up := Foreground(tmp_path / "data", switches))
    up.ready()
    assert all(map(alive, up.pids))
    up.process.kill()
    assert gone(up.pids)


def test_a_reader_that_goes_away_ends_it_as_a_signal_would(
    tmp_path: Path, switches: Switches, foregrounds: list[Foreground]
) -> None:
    foregrounds.append(up := Foreground(tmp_path / "data", switches))
    up.ready()
    assert up.process.stdout is not None
    up.process.stdout.close()
    os.kill(up.pids[0], signal.SIGKILL)  # which gives it something to write
    assert up.process.wait(timeout=30) == 0
    assert gone(up.pids)


def test_people_read_a_table_of_addresses_and_what_to_do_next(
    tmp_path: Path, switches: Switches, foregrounds: list[Foreground]
) -> None:
    foregrounds.append(up := Foreground(tmp_path / "data", switches, machine=False))
    up.read_until("ready after")
    for name in ("gateway", "embedder", "reranker", "index"):
        up.read_until(f"    {name:9} 127.0.0.1:")
    assert "--gateway 127.0.0.1:" in up.read_until("winnow search")
    assert any("│ a line that is no event" in line for line in up.lines)
    assert any("gateway  │ listening address=127.0.0.1:" in line for line in up.lines)
    up.process.terminate()
    assert up.process.wait(timeout=30) == 0
