"""Processes of other interpreters that do what they are told: one JSON object a line, there and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from winnow_rpc.faults import Unavailable

_SCRIPT = Path(__file__).parent.parent / "peers" / "worker.py"
# Vectors of some thousand texts come on one line.
_LONGEST_LINE = 512 * 1024 * 1024
_ENDING_SECONDS = 15.0


class WorkerFailed(Unavailable):
    """A worker could not do what it was told; the message is one sentence."""

    default_reason = "WORKER_FAILED"


class Worker:
    """A running worker. Made by `running_worker`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._last_lines: deque[str] = deque(maxlen=5)
        self._busy = False
        self._listening = asyncio.create_task(self._listen(), name=f"log of {name}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def call(self, method: str, *, seconds_allowed: float = 900.0, **arguments: Any) -> dict[str, Any]:
        """What the method answered. Raises WorkerFailed if it failed, took too long, or the worker is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # While a call is under way, whoever ends the worker need not wait for it.
        self._busy = True
        try:
            async with asyncio.timeout(seconds_allowed):
                self._process.stdin.write(json.dumps({"method": method, "arguments": arguments}).encode() + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise WorkerFailed(f"{self._name}: {method} took longer than {seconds_allowed:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        self._busy = False
        if not line:
            await asyncio.wait([self._listening], timeout=1)
            said = " ".join(" ".join(self._last_lines).split())
            raise WorkerFailed(f"{self._name} has ended: {said[-300:] or 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self._name}: {answer['error']}")
        answered: dict[str, Any] = answer["answer"]
        return answered

    async def stop(self) -> None:
        """Ends it and whatever it started; one that is idle may end by itself."""
        assert self._process.stdin is not None
        if not self._busy:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDING_SECONDS):
                    await self._process.wait()
        # It leads a group of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65536):
            self._last_lines.extend(line for line in chunk.decode(errors="replace").splitlines() if line.strip())


@asynccontextmanager
async def running_worker(name: str, *, python: Path, module: str) -> AsyncIterator[Worker]:
    """A worker with the class `Contestant` of `module`, run by the interpreter `python`; ended at the end.

    Raises WorkerFailed if the interpreter cannot be run.
    """
    # No model hub is asked: what is measured has to be here.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment.pop("PYTHONPATH", None)
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(python), str(_SCRIPT), str(os.getpid()), module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            # A terminal's Ctrl-C is for the benchmark alone, which then ends its workers.
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise WorkerFailed(f"{name} cannot be started: {python}: {error.strerror}") from error
    worker = Worker(name, process)
    try:
        yield worker
    finally:
        await worker.stop()
