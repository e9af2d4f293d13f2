"""One model service as a process of its own, on a free port: started, waited for, stopped by its process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from winnow_client.cli.processes import Process
from winnow_client.cli.supervision_log import Entry, parse_line
from winnow_rpc.faults import Unavailable

# Converting and quantising a model takes minutes, the first time.
_READY_SECONDS = 900.0
_STOPPING_SECONDS = 20.0
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
]
"""For channels to services on this machine."""


class ServiceFailed(Unavailable):
    """A service did not start, or did not do what it was asked; the message is one sentence with what it said."""

    default_reason = "SERVICE_FAILED"


@dataclass(frozen=True, kw_only=True)
class RunningService:
    """A service that serves."""

    address: str
    """host:port."""
    pid: int
    """Its process id."""
    start_seconds: float
    """From its start until it was serving."""


@asynccontextmanager
async def running_service(name: str, flags: Mapping[str, object]) -> AsyncIterator[RunningService]:
    """`python -m winnow_<name>` with these flags, serving; drained at the end. Raises ServiceFailed."""
    entries: deque[Entry] = deque(maxlen=5)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(line: str) -> None:
        entry = parse_line(name, line, now=datetime.now(UTC))
        entries.append(entry)
        if entry.event == "listening" and not listening.done():
            listening.set_result(str(entry.facts["address"]))

    given = {"port": 0, "host": "127.0.0.1", "log-format": "json", "drain-seconds": 2, **flags}
    arguments = [part for flag, value in given.items() for part in (f"--{flag}", str(value))]
    began = time.perf_counter()
    process = await Process.start(f"winnow_{name}", arguments, environment=_environment(), on_line=hear)
    ended: asyncio.Future[Any] = asyncio.create_task(process.ended())
    try:
        await _first(listening, ended)
        if ended.done() or not listening.done() or not await _serving(listening.result(), ended):
            said = " · ".join(entry.text for entry in entries if entry.level in ("error", "critical", "info"))
            raise ServiceFailed(f"the {name} did not start: {said[-400:] or 'it said nothing'}")
        yield RunningService(
            address=listening.result(), pid=process.pid, start_seconds=round(time.perf_counter() - began, 2)
        )
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await process.terminate(patience=_STOPPING_SECONDS)
        process.kill()
        await ended


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Makes a ServiceFailed of what a call of the service `name` raises."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise ServiceFailed(f"{name} answered {error.code().name}: {error.details()}") from error


async def _first(*awaited: asyncio.Future[Any]) -> None:
    await asyncio.wait(awaited, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)


async def _serving(address: str, ended: asyncio.Future[Any]) -> bool:
    """Waits until it says that it serves; False if it ends before, or takes too long."""
    give_up = time.monotonic() + _READY_SECONDS
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not ended.done() and time.monotonic() < give_up:
            with contextlib.suppress(grpc.aio.AioRpcError):
                health = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
                if health.status == health_pb2.HealthCheckResponse.SERVING:
                    return True
            await asyncio.sleep(0.1)
    return False


def _environment() -> dict[str, str]:
    """This process's, without settings for services that somebody else runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WINNOW_EMB", "WINNOW_RER"))}
    return {**kept, "HF_HUB_OFFLINE": "1"}
