"""Winnow's four services as child processes of this one: started, watched, restarted, drained.

    async with Stack(StackConfig(data=Path("data"))) as stack:
        client = AsyncClient(stack.gateway_address)

What to do about an end or a failed health check is decided by `supervision`; here it is done.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from winnow_client.cli.processes import Process
from winnow_client.cli.supervision import Backoff, GiveUp, Phase, Supervision, all_serving
from winnow_client.cli.supervision_log import Entry, parse_line
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import Unavailable
from winnow_rpc.tls import ClientTls

INDEX, EMBEDDER, RERANKER, GATEWAY = "index", "embedder", "reranker", "gateway"

_HOST = "127.0.0.1"
# Callers before those they call, so that what is in progress can end.
_STOPPING_ORDER = ((GATEWAY,), (EMBEDDER, RERANKER), (INDEX,))
# Beyond its draining, a service closes what it holds and its interpreter ends.
_CLOSING_SECONDS = 5.0
_STARTING_PROBE_SECONDS = 0.1
_STEADY_PROBE_SECONDS = 1.0
_PROBE_TIMEOUT_SECONDS = 5.0
_LAST_LINES = 5


class StackFailed(Unavailable):
    """The stack cannot run; the message is one sentence that says which service failed and how."""

    default_reason = "STACK_FAILED"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What to run, and where. Ports are on loopback; 0 takes a free one, and a restart keeps it."""

    data: Path
    """The index's directory; made if it is not there."""
    gateway_port: int = 50050
    """Port of the gateway."""
    index_port: int = 6334
    """Port of the index."""
    embedder_port: int = 50051
    """Port of the embedder."""
    reranker_port: int = 50052
    """Port of the reranker."""
    model: str | None = None
    """Path or hub id of the bi-encoder; None: the embedder's default."""
    reranker_model: str | None = None
    """Path or hub id of the cross-encoder; None: the reranker's default."""
    log_level: str = "info"
    """Least severe events that the services log."""
    drain_seconds: float = 10.0
    """How long calls in progress may take to end when the stack stops."""
    ready_seconds: float | None = None
    """How long the stack may take to be ready; None: for ever, since a model may have to be fetched first."""
    modules: Mapping[str, str] = field(
        default_factory=lambda: {name: f"winnow_{name}" for name in (INDEX, EMBEDDER, RERANKER, GATEWAY)}
    )
    """The Python module that is each service."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for the services, beside those of this process."""
    tls: ClientTls | None = None
    """How health is asked for where `environment` makes the services speak TLS; None: in plain text."""
    backoff: Backoff = field(default_factory=Backoff)
    """How long to wait before restarting what has ended."""


class _Child:
    """One service of the stack: its life so far, and its process if it has one now."""

    def __init__(self, name: str, *, backoff: Backoff, needs: Sequence[str] = ()) -> None:
        self.name = name
        self.needs = needs
        self.supervision = Supervision(name, backoff=backoff)
        self.located = asyncio.Event()
        self.stopping = asyncio.Event()
        self.process: Process | None = None
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self.supervising: asyncio.Task[None] | None = None


class Stack:
    """The four services. `async with` starts them, waits until all are serving, and stops them in order."""

    def __init__(self, config: StackConfig, *, listener: Callable[[Entry], None] = lambda entry: None) -> None:
        """`listener` is given every entry of the log, the services' and the supervisor's; it must not raise."""
        self._config = config
        self._listener = listener
        backends = (INDEX, EMBEDDER, RERANKER)
        self._children = {name: _Child(name, backoff=config.backoff) for name in backends}
        self._children[GATEWAY] = _Child(GATEWAY, backoff=config.backoff, needs=backends)
        self._probing: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._failed = asyncio.Event()
        self._failure = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def gateway_address(self) -> str:
        """host:port of the gateway."""
        return self.addresses[GATEWAY]

    @property
    def data(self) -> Path:
        """The index's directory, absolute."""
        return self._config.data.absolute()

    @property
    def addresses(self) -> dict[str, str]:
        """host:port of every service, by its name; empty while it is not known."""
        return {name: self._children[name].supervision.address for name in (GATEWAY, EMBEDDER, RERANKER, INDEX)}

    @property
    def pids(self) -> dict[str, int]:
        """Process id of every service that runs now, by its name."""
        return {name: child.process.pid for name, child in self._children.items() if child.process}

    async def start(self) -> None:
        """Starts everything and waits until it is serving. Raises StackFailed, with nothing left running."""
        try:
            self._make_data_directory()
            for child in self._children.values():
                child.supervising = asyncio.create_task(self._supervise(child), name=f"supervise {child.name}")
                probing = asyncio.create_task(self._probe(child), name=f"probe {child.name}")
                self._probing.append(probing)
                for task in (child.supervising, probing):
                    task.add_done_callback(self._notice_mistake)
            await _first(self._ready, self._failed, seconds=self._config.ready_seconds)
            if not self._ready.is_set():
                raise StackFailed(self._failure or self._tardiness())
        except BaseException:
            await self.stop()
            raise

    async def failure(self) -> str:
        """Waits until the stack cannot go on, which may be never, and says why."""
        await self._failed.wait()
        return self._failure

    async def stop(self) -> None:
        """Drains the services, callers before called, and waits for their end. Nothing is left running."""
        for child in self._children.values():
            child.stopping.set()
        try:
            for wave in _STOPPING_ORDER:
                await asyncio.gather(*(self._stop_child(self._children[name]) for name in wave))
        finally:
            self.kill()
            for task in self._probing:
                task.cancel()
            await asyncio.gather(*self._probing, return_exceptions=True)

    def kill(self) -> None:
        """Kills the services at once, without draining."""
        for child in self._children.values():
            child.stopping.set()
            if child.process:
                child.process.kill()

    def _make_data_directory(self) -> None:
        data = self._config.data
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackFailed(f"the data directory {data} cannot be made: {error.strerror}") from error

    def _notice_mistake(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours in a task that nobody awaits must not leave the stack half supervised, in silence."""
        if not task.cancelled() and (error := task.exception()):
            self._fail(f"the supervisor failed in its task '{task.get_name()}': {error!r}")

    async def _stop_child(self, child: _Child) -> None:
        if child.process:
            await child.process.terminate(patience=self._config.drain_seconds + _CLOSING_SECONDS)
        if child.supervising:
            await asyncio.wait([child.supervising])

    async def _supervise(self, child: _Child) -> None:
        for name in child.needs:
            # Where the port is fixed, the address is known before anyone listens there. But the gateway's first health
            # probe asks the index, and a failed one costs the time until the next.
            if name == INDEX or not self._configured_port(name):
                await _first(self._children[name].located, child.stopping)
        while not child.stopping.is_set():
            arguments = self._arguments(child)
            try:
                child.process = await Process.start(
                    self._config.modules[child.name],
                    arguments,
                    environment=_environment(self._config.environment),
                    on_line=lambda line: self._hear(child, line),
                )
            except OSError as error:
                self._fail(f"{child.name} cannot be started: {error.strerror}")
                return
            child.supervision.started()
            self._say(
                "started", f"{child.name} started, process {child.process.pid}", child=child.name, pid=child.process.pid
            )
            if child.stopping.is_set():
                # Asked to stop while it was being started, when there was nothing to stop yet.
                await child.process.terminate(patience=_CLOSING_SECONDS)
            ending = await child.process.ended()
            child.process = None
            if child.stopping.is_set():
                return
            words = child.last_lines[-1] if child.last_lines else ""
            verdict = child.supervision.exited(ending, now=time.monotonic(), last_words=words)
            self._say(
                "died",
                verdict.sentence,
                level="error",
                child=child.name,
                exit_status=ending.status,
                last_lines=list(child.last_lines),
            )
            child.last_lines.clear()
            if isinstance(verdict, GiveUp):
                self._fail(verdict.sentence)
                return
            await _first(child.stopping, seconds=verdict.after_seconds)

    def _hear(self, child: _Child, line: str) -> None:
        if not line.strip():
            return
        entry = parse_line(child.name, line, now=datetime.now(UTC))
        child.last_lines.append(entry.text)
        match entry.event:
            case "listening" if isinstance(address := entry.facts.get("address"), str):
                child.supervision.listening(address)
                child.located.set()
            case "cannot start":
                facts = entry.facts
                child.supervision.refused(reason=str(facts.get("reason", "")), message=str(facts.get("message", "")))
        self._listener(entry)

    async def _probe(self, child: _Child) -> None:
        """Asks the child's health for as long as the stack lives."""
        await child.located.wait()
        supervision = child.supervision
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        tls = self._config.tls
        async with (
            open_channel(ChannelSettings(target=supervision.address, idempotent={}, tls=tls))
            if tls
            else grpc.aio.insecure_channel(supervision.address, options=options)
        ) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                serving = await _is_serving(stub)
                if supervision.probed(serving=serving, now=time.monotonic()):
                    self._turned(child)
                await asyncio.sleep(_STEADY_PROBE_SECONDS if serving else _STARTING_PROBE_SECONDS)

    def _turned(self, child: _Child) -> None:
        if child.supervision.phase is Phase.NOT_SERVING:
            if not child.stopping.is_set():
                self._say("unhealthy", f"{child.name} runs but is not serving", level="warning", child=child.name)
            return
        if self._ready.is_set():
            self._say("back", f"{child.name} is serving again", child=child.name)
        elif all_serving(other.supervision for other in self._children.values()):
            self._ready.set()

    def _fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence
        self._failed.set()

    def _tardiness(self) -> str:
        late = [name for name, child in self._children.items() if child.supervision.phase is not Phase.SERVING]
        return f"not serving after {self._config.ready_seconds:g} s: {', '.join(late)}"

    def _say(self, event: str, message: str, *, level: str = "info", **facts: Any) -> None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._listener(Entry("winnow", event, level=level, timestamp=now, facts={"message": message, **facts}))

    def _configured_port(self, name: str) -> int:
        config = self._config
        ports = {
            GATEWAY: config.gateway_port,
            INDEX: config.index_port,
            EMBEDDER: config.embedder_port,
            RERANKER: config.reranker_port,
        }
        return ports[name]

    def _address(self, name: str) -> str:
        return self._children[name].supervision.address or f"{_HOST}:{self._configured_port(name)}"

    def _arguments(self, child: _Child) -> list[str]:
        """Flags of a service. Once it has had a port, it gets that again: others know it by its address."""
        config = self._config
        flags: dict[str, object] = {
            "host": _HOST,
            "port": child.supervision.port or self._configured_port(child.name),
            "log-format": "json",
            "log-level": config.log_level,
            "drain-seconds": config.drain_seconds,
        }
        match child.name:
            case "index":
                flags["data-dir"] = self.data
            case "embedder" if config.model:
                flags["model"] = config.model
            case "reranker" if config.reranker_model:
                flags["model"] = config.reranker_model
            case "gateway":
                flags |= {name: self._address(name) for name in child.needs}
        return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


async def _is_serving(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `extra`, fit for four services on one machine."""
    # OpenMP threads that wait for each other spin by default, and two model services on one machine then spin on the
    # cores that the other needs: measured with other work on the same two cores, torch was 2.5 times slower.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **extra}
    # gRPC would send even loopback through a proxy.
    for name in ("no_proxy", "no_grpc_proxy"):
        if name == "no_proxy" or name in environment:
            environment[name] = ",".join(filter(None, (environment.get(name), "127.0.0.1", "localhost")))
    return environment


async def _first(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Returns when one of the events is set, or after so many seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
