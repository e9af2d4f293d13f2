"""`winnow up`: the four services in the foreground, under one log."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from winnow_client.cli.connection import Connection, pass_connection
from winnow_client.cli.output import stream
from winnow_client.cli.processes_stack import Stack, StackConfig, StackFailed
from winnow_client.cli.supervision_log import Entry, as_json, for_people

_DEFAULTS = StackConfig(data=Path(".winnow/data"))
_PORT = click.IntRange(0, 65535)
_KILLED_AT_ONCE = 130


class Log:
    """Writes entries to a stream, for people or as JSON. Never raises: that nobody reads any more is told once."""

    def __init__(self, stream: TextIO, *, machine: bool, on_closed: Callable[[], None] = lambda: None) -> None:
        self._stream = stream
        self._machine = machine
        self._colour = not machine and stream.isatty() and "NO_COLOR" not in os.environ
        self.on_closed = on_closed
        """Called when the reader of the stream has gone."""
        self._closed = False

    def entry(self, entry: Entry) -> None:
        """Writes one entry."""
        self.text(as_json(entry) if self._machine else for_people(entry, colour=self._colour))

    def text(self, text: str) -> None:
        """Writes text and a line end."""
        if self._closed:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._closed = True
            _silence(self._stream)
            self.on_closed()


def _silence(stream: TextIO) -> None:
    """Points the stream to nowhere, else the interpreter complains about the unwritten rest as it exits."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


@click.command(epilog="Example: winnow up --data ./search-data --log-level warning")
@click.option("--gateway-port", type=_PORT, default=_DEFAULTS.gateway_port, show_default=True, help="0: a free one.")
@click.option("--embedder-port", type=_PORT, default=_DEFAULTS.embedder_port, show_default=True, help="0: a free one.")
@click.option("--reranker-port", type=_PORT, default=_DEFAULTS.reranker_port, show_default=True, help="0: a free one.")
@click.option("--index-port", type=_PORT, default=_DEFAULTS.index_port, show_default=True, help="0: a free one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=_DEFAULTS.data,
    show_default=True,
    help="Directory of the index; made if it is not there.",
)
@click.option("--model", help="Bi-encoder: a path or hub id.  [default: all-MiniLM-L6-v2]")
@click.option("--reranker-model", help="Cross-encoder: a path or hub id.  [default: the one that ships with Winnow]")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default=_DEFAULTS.log_level,
    show_default=True,
    help="Least severe events of the services to show.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 600),
    default=_DEFAULTS.drain_seconds,
    show_default=True,
    help="How long calls in progress may take to end when stopping.",
)
@click.option("--json", "machine", is_flag=True, help="Write the log as JSON, one event a line.")
@pass_connection
def up(
    connection: Connection,
    *,
    gateway_port: int,
    embedder_port: int,
    reranker_port: int,
    index_port: int,
    data: Path,
    model: str | None,
    reranker_model: str | None,
    log_level: str,
    drain_seconds: float,
    machine: bool,
) -> None:
    """Run embedder, reranker, index and gateway in the foreground, on this machine alone.

    Ready when every health check says SERVING. A service that dies is restarted. Ctrl-C or SIGTERM lets calls in
    progress end and stops all; a second Ctrl-C stops at once.
    """
    machine = machine or connection.machine
    config = StackConfig(
        data=data,
        gateway_port=gateway_port,
        embedder_port=embedder_port,
        reranker_port=reranker_port,
        index_port=index_port,
        model=model,
        reranker_model=reranker_model,
        log_level=log_level,
        drain_seconds=drain_seconds,
    )
    try:
        status = asyncio.run(run_in_foreground(config, log=Log(stream(), machine=machine), machine=machine))
    except StackFailed as failure:
        raise click.ClickException(failure.message) from failure
    sys.exit(status)


async def run_in_foreground(config: StackConfig, *, log: Log, machine: bool) -> int:
    """Runs the stack until a signal, or until it fails (StackFailed). Returns the exit status.

    That is 0 after a drain, whichever signal asked for it: to stop is what a foreground stack is told in the end, and
    it did as told. After a second signal, which cuts calls off, it is 130.
    """
    began = time.monotonic()
    stack = Stack(config, listener=log.entry)
    stopping = asyncio.Event()
    at_once = asyncio.Event()

    def on_signal(name: str) -> None:
        if stopping.is_set():
            at_once.set()
            stack.kill()
            return
        stopping.set()
        log.entry(_event("stopping", f"{name}: draining; once more stops at once", signal=name))

    log.on_closed = stopping.set
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number.name)
    starting = asyncio.create_task(stack.start())
    asked = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        await starting
        _announce(stack, log, seconds=time.monotonic() - began, machine=machine)
        failing = asyncio.create_task(stack.failure())
        await asyncio.wait([failing, asked], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            raise StackFailed(failing.result())
        failing.cancel()
    finally:
        asked.cancel()
        if not starting.done():
            starting.cancel()  # which stops what has been started
            await asyncio.wait([starting])
        await stack.stop()
        log.entry(_event("stopped", "all services have stopped"))
    return _KILLED_AT_ONCE if at_once.is_set() else 0


def _announce(stack: Stack, log: Log, *, seconds: float, machine: bool) -> None:
    if machine:
        message = f"ready after {seconds:.1f} s"
        facts = {"addresses": stack.addresses, "pids": stack.pids, "data": str(stack.data)}
        log.entry(_event("ready", message, seconds=round(seconds, 3), **facts))
        return
    port = stack.gateway_address.rpartition(":")[2]
    server = "" if port == str(_DEFAULTS.gateway_port) else f" --gateway {stack.gateway_address}"
    table = "\n".join(f"    {name:9} {address}" for name, address in stack.addresses.items())
    log.text(
        f"\n  ready after {seconds:.1f} s, Ctrl-C stops\n\n{table}\n\n"
        f"  In another terminal:\n"
        f"    winnow ingest{server} docs ./my-documents\n"
        f'    winnow search{server} docs "what are you looking for?"\n'
    )


def _event(event: str, message: str, **facts: object) -> Entry:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return Entry("winnow", event, timestamp=now, facts={"message": message, **facts})
