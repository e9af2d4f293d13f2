"""Runs `winnow` commands as a user would, and reads what they write."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

WINNOW = Path(sys.executable).with_name("winnow")
SERVICES = ("gateway", "embedder", "reranker", "index")
FREE_PORTS = [part for name in SERVICES for part in (f"--{name}-port", "0")]

START_SECONDS = 240.0
"""Bound of a start: about 12 s on two idle cores, many times that on busy ones."""


def winnow(*arguments: str, cwd: Path, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [str(WINNOW), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def wait_until(condition: Callable[[], object], *, seconds: float) -> None:
    """Waits for something to become true. Fails if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)


def health(address: str) -> str:
    """What a service answers to the standard health check: "SERVING"; or the name of the error."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


class Up:
    """`winnow up --json`, running. Its output goes to a file, which is read here."""

    def __init__(self, directory: Path, arguments: Sequence[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "up.jsonl"
        with self._log.open("w") as log, (directory / "up.err").open("w") as errors:
            self.process = subprocess.Popen(
                [str(WINNOW), "up", "--json", *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                start_new_session=True,
            )

    def events(self, name: str, *, after: int = 0) -> list[dict[str, Any]]:
        """The events of this name so far, from the given line of the log on."""
        lines = self._log.read_text().splitlines(keepends=True)[after:]
        # The last line may be in the middle of being written.
        read = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in read if event["event"] == name]

    def position(self) -> int:
        """Lines of the log so far."""
        return len(self._log.read_text().splitlines())

    def wait_for(self, name: str, *, after: int = 0, seconds: float = START_SECONDS, **facts: object) -> dict[str, Any]:
        """Waits for an event with these facts. Fails if the process ends before, or if it does not come in time."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            for event in self.events(name, after=after):
                if facts.items() <= event.items():
                    return event
            assert not ended, f"winnow up has ended: {self._log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"no {name} within {seconds:g} s: {self._log.read_text()[-3000:]}"
            time.sleep(0.05)

    def ready(self) -> Self:
        """Waits until all four serve."""
        self.wait_for("ready")
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """host:port of every service."""
        found: dict[str, str] = self.events("ready")[0]["addresses"]
        return found

    def pid(self, service: str) -> int:
        """Process id of a service: that of its latest start."""
        starts = [event for event in self.events("started") if event["child"] == service]
        return int(starts[-1]["pid"])

    @property
    def pids(self) -> list[int]:
        """Process ids of all services that were ever started."""
        return [event["pid"] for event in self.events("started")]

    def kill_service(self, name: str) -> None:
        """kill -9 of a service."""
        os.kill(self.pid(name), signal.SIGKILL)

    def stop(self, *, seconds: float = 60.0) -> int:
        """SIGTERM, and the exit status; kills it after so many seconds."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        finally:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_up(directory: Path, *arguments: str) -> Iterator[Up]:
    """`winnow up`, stopped at the end whatever happens."""
    up = Up(directory, arguments)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.stop()
