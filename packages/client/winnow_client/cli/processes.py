"""One operating-system process of a service: its start, its lines, its end. `processes_stack` runs four of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from winnow_client.cli.supervision import Exit

_CHILD = Path(__file__).with_name("processes_child.py")
_LONGEST_LINE = 1024 * 1024
# What a process leaves in its pipe is read after its end, but no longer than this: a grandchild may hold the pipe open.
_LAST_LINES_SECONDS = 1.0


class Process:
    """A service's module, running. Made by `Process.start`.

    It leads a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone and draining has an order;
    whatever it leaves behind there is killed after its end.
    """

    def __init__(self, process: asyncio.subprocess.Process, pipe: int, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._ending = asyncio.create_task(self._run(pipe, on_line), name=f"process {process.pid}")

    @classmethod
    async def start(
        cls, module: str, arguments: Sequence[str], *, environment: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Process:
        """Starts `python -m module arguments…`; every line that it writes to either output is given to `on_line`.

        The process ends with this one, even if this one is killed. On Linux, "this one" is the thread that runs the
        event loop: it has to live as long as the process should.
        """
        # A pipe of our own rather than subprocess.PIPE: there, `wait` may wait for whoever inherited it, too.
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(_CHILD), str(os.getpid()), module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                env={**environment, "PYTHONUNBUFFERED": "1"},
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(process, reading, on_line)

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    async def ended(self) -> Exit:
        """Waits for its end, and until all its lines were handed over."""
        return await asyncio.shield(self._ending)

    async def terminate(self, *, patience: float) -> Exit:
        """Asks it to end; kills it if it has not ended after `patience` seconds."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                return await self.ended()
        except TimeoutError:
            self.kill()
            return await self.ended()

    def kill(self) -> None:
        """Kills it and whatever it started."""
        if not self._ending.done():
            self._kill_group()

    def _kill_group(self) -> None:
        # Nobody is left in the group; or (macOS) only processes that have ended and are not yet reaped.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _run(self, pipe: int, on_line: Callable[[str], None]) -> Exit:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
        )
        reading = asyncio.create_task(_read_lines(reader, on_line))
        try:
            status = await self._process.wait()
            self._kill_group()
            await asyncio.wait([reading], timeout=_LAST_LINES_SECONDS)
        finally:
            reading.cancel()
            transport.close()
        return Exit(status)


async def _read_lines(reader: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    rest = b""
    while chunk := await reader.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = b""
        for line in lines:
            on_line(line.decode("utf-8", errors="replace"))
    if rest:
        on_line(rest.decode("utf-8", errors="replace"))
