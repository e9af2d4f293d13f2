"""Servers for the index's contract tests: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.grpc import (
    collections_service_pb2_grpc,
    points_service_pb2_grpc,
    qdrant_pb2_grpc,
    snapshots_service_pb2_grpc,
)

from winnow_index.serving import open_service
from winnow_index.settings import IndexSettings
from winnow_rpc.serving import RunningServer


def _client(port: int, host: str = "127.0.0.1") -> AsyncQdrantClient:
    return AsyncQdrantClient(
        host=host,
        grpc_port=port,
        prefer_grpc=True,
        check_compatibility=False,
        cloud_inference=True,
        timeout=60,
        # Else channels to one address share a connection, and with it the memory that it failed before a restart.
        grpc_options={"grpc.use_local_subchannel_pool": 1},
    )


class IndexProcess:
    """The index in a process of its own."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.data = data
        self.flags = flags
        self.port = 0
        self.lines: list[str] = []
        """What it logged since it was last started."""
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def start(self) -> None:
        """Starts it and waits until it serves. On a restart it takes the port that it had."""
        command = [sys.executable, "-m", "winnow_index", "--data-dir", str(self.data), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--log-format", "json", *self.flags], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "listening":
                self.port = int(event["address"].rsplit(":", 1)[1])
            if event.get("event") == "serving":
                self._drain()
                return
        raise AssertionError(f"the index ended with status {self._process.wait()} before it served")

    def _drain(self) -> None:
        process = self._process
        assert process is not None
        assert process.stderr is not None
        stream = process.stderr
        self.lines = []
        lines = self.lines

        def collect() -> None:
            with stream:
                lines.extend(stream)

        self._reader = threading.Thread(target=collect, daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Ends it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def stop(self) -> int:
        """Ends it as an operator would; its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=20)
        self._reader.join()
        return status

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> AsyncQdrantClient:
        """A client of it."""
        return _client(self.port)


@pytest.fixture
def index_process(tmp_path: Path) -> Iterator[Callable[..., IndexProcess]]:
    """Starts index processes; those left are killed."""
    started: list[IndexProcess] = []

    def start(*flags: str, data: Path | None = None) -> IndexProcess:
        process = IndexProcess(data or tmp_path / "data", *flags)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def settings(tmp_path: Path) -> IndexSettings:
    """Settings of the in-process index; a test module may override this fixture."""
    return IndexSettings(port=0, data_dir=tmp_path / "data", probe_seconds=600)


@pytest.fixture
async def server(settings: IndexSettings) -> AsyncIterator[RunningServer]:
    """The index, served from this process on a free port."""
    running = RunningServer(open_service(settings), settings)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[AsyncQdrantClient]:
    """An unmodified client of the in-process index."""
    made = _client(int(server.address.rsplit(":", 1)[1]))
    yield made
    await made.close()


@pytest.fixture
async def stub(server: RunningServer) -> AsyncIterator[Callable[[str], Any]]:
    """Stubs of the raw protocol, for requests that the client would not make."""
    stubs: dict[str, Any] = {
        "Points": points_service_pb2_grpc.PointsStub,
        "Collections": collections_service_pb2_grpc.CollectionsStub,
        "Qdrant": qdrant_pb2_grpc.QdrantStub,
        "Snapshots": snapshots_service_pb2_grpc.SnapshotsStub,
    }
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield lambda name: stubs[name](channel)


_QDRANT_URL = os.environ.get("WINNOW_TEST_QDRANT_URL")

if _QDRANT_URL:

    @pytest.fixture
    async def remote() -> AsyncIterator[AsyncQdrantClient]:
        """The server that the congruence suite compares: the real Qdrant that WINNOW_TEST_QDRANT_URL names."""
        parts = urlsplit(str(_QDRANT_URL))
        made = AsyncQdrantClient(
            host=parts.hostname or "localhost",
            port=parts.port or 6333,
            grpc_port=int(os.environ.get("WINNOW_TEST_QDRANT_GRPC_PORT", "6334")),
            prefer_grpc=True,
            check_compatibility=False,
            cloud_inference=True,
            timeout=60,
        )
        yield made
        await made.close()

else:

    @pytest.fixture
    def remote(client: AsyncQdrantClient) -> AsyncQdrantClient:
        """The server that the congruence suite compares: ours."""
        return client


async def _until_green(client: AsyncQdrantClient, collection: str, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while (await client.get_collection(collection)).status != "green":  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)


@pytest.fixture
def until_green() -> Callable[..., object]:
    """Waits until no build is due or going on."""
    return _until_green


class Pair:
    """One collection in two places: the client's local mode, and the server under test. Every call goes to both."""

    def __init__(self, local: AsyncQdrantClient, remote: AsyncQdrantClient, name: str) -> None:
        self.local, self.remote, self.name = local, remote, name
        self._names = [name]

    async def create(self, *, name: str | None = None, **config: Any) -> None:
        """Makes the collection, or one more."""
        for client in (self.local, self.remote):
            await client.create_collection(name or self.name, **config)
        if name:
            self._names.append(name)

    async def call(self, method: str, **arguments: Any) -> tuple[Any, Any]:
        """The answers of the server and of the local mode."""
        writes = method in ("upsert", "delete", "create_payload_index", "batch_update_points") or "payload" in method
        extra = {"wait": True} if writes or "vectors" in method else {}
        name = arguments.pop("collection_name", self.name)
        with warnings.catch_warnings():
            # The local mode says that payload indexes have no effect there.
            warnings.simplefilter("ignore", UserWarning)
            theirs = await getattr(self.local, method)(name, **arguments, **extra)
        ours = await getattr(self.remote, method)(name, **arguments, **extra)
        return ours, theirs

    async def remote_only(self, method: str, **arguments: Any) -> Any:
        """The answer of the server alone."""
        return await getattr(self.remote, method)(self.name, **arguments)

    async def both_refuse(self, method: str, **arguments: Any) -> Exception:
        """The server's error, where both refuse."""
        for client in (self.local, self.remote):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the local mode raises many kinds
                await getattr(client, method)(self.name, **arguments)
        return caught.value

    async def contents(self) -> tuple[list[Any], list[Any]]:
        """All points of both, in order, with payloads and vectors."""
        (ours, _), (theirs, _) = await self.call("scroll", limit=10_000, with_payload=True, with_vectors=True)
        return ours, theirs

    async def same_contents(self, tolerance: float = 1e-6) -> None:
        """Asserts that both hold the same points. Vectors are float32; cosine ones are normalized by each side."""
        ours, theirs = await self.contents()
        assert [r.id for r in ours] == [r.id for r in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert settled(mine.payload or {}) == settled(other.payload or {})
            same_vectors(mine.vector, other.vector, tolerance)

    async def drop(self) -> None:
        """Deletes what was made."""
        for name in self._names:
            await self.remote.delete_collection(name)


def settled(payload: Any) -> Any:
    """A payload without the last bit of its numbers, which the engine's JSON reader may round the other way."""
    if isinstance(payload, dict):
        return {key: settled(value) for key, value in payload.items()}
    if isinstance(payload, list):
        return [settled(value) for value in payload]
    return float(f"{payload:.14g}") if isinstance(payload, float) else payload


def same_vectors(mine: Any, other: Any, tolerance: float) -> None:
    """Asserts that two points' vectors are equal within a tolerance."""
    if isinstance(mine, dict) or isinstance(other, dict):
        assert set(mine or {}) == set(other or {})
        for name in mine or {}:
            same_vectors(mine[name], other[name], tolerance)
    elif isinstance(mine, models.SparseVector):
        assert mine.indices == other.indices
        assert mine.values == pytest.approx(other.values, abs=tolerance)
    elif mine is None or other is None:
        assert mine == other
    else:
        assert np.asarray(mine) == pytest.approx(np.asarray(other), abs=tolerance)


def same_ranking(ours: list[Any], theirs: list[Any], tolerance: float = 1e-5) -> None:
    """Asserts equal scores at every rank, and equal ids wherever the scores tell the points apart.

    Points with the same score may come in any order, and at the end of the list any of them may be cut off.
    """
    assert len(ours) == len(theirs)
    mine, other = [p.score for p in ours], [p.score for p in theirs]
    assert mine == pytest.approx(other, rel=tolerance, abs=tolerance)
    start = 0
    for end in range(1, len(ours) + 1):
        if end < len(ours) and abs(other[end] - other[end - 1]) <= 2 * tolerance * max(1.0, abs(other[end])):
            continue
        if end < len(ours):
            assert {str(p.id) for p in ours[start:end]} == {str(p.id) for p in theirs[start:end]}
        start = end
    payloads = {str(p.id): p.payload for p in theirs}
    for point in ours:
        if str(point.id) in payloads:
            assert settled(point.payload or {}) == settled(payloads[str(point.id)] or {})


@pytest.fixture
async def pair(remote: AsyncQdrantClient) -> AsyncIterator[Pair]:
    """An empty place in both; a test creates what it needs."""
    local = AsyncQdrantClient(":memory:")
    made = Pair(local, remote, f"congruence-{uuid.uuid4().hex[:8]}")
    yield made
    await made.drop()
    await local.close()


@pytest.fixture
def rankings_agree() -> Callable[..., None]:
    """See `same_ranking`."""
    return same_ranking


@pytest.fixture(name="settled")
def settled_payload() -> Callable[[Any], Any]:
    """See `settled`."""
    return settled


_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]


@pytest.fixture(scope="session")
def payloads() -> list[dict[str, Any]]:
    """200 payloads with every kind of value; some keys are missing, null or empty."""
    random = np.random.default_rng(5)
    made: list[dict[str, Any]] = []
    for n in range(200):
        payload: dict[str, Any] = {
            "word": _WORDS[int(random.integers(5))],
            "number": int(random.integers(0, 20)),
            "real": float(np.round(random.normal(), 6)),
            "flag": bool(random.integers(0, 2)),
            "when": f"2024-{int(random.integers(1, 13)):02d}-{int(random.integers(1, 28)):02d}T08:30:00Z",
            "where": {"lon": float(random.uniform(-8, 8)), "lat": float(random.uniform(-8, 8))},
            "uuid": str(uuid.UUID(int=int(random.integers(0, 30)))),
            "text": " ".join(_WORDS[int(k)] for k in random.integers(0, 5, 4)),
            "tags": [_WORDS[int(k)] for k in random.integers(0, 5, int(random.integers(0, 4)))],
            "parts": [
                {"name": "abc"[int(random.integers(3))], "size": int(random.integers(0, 10))}
                for _ in range(int(random.integers(0, 3)))
            ],
            "deep": {"inner": _WORDS[int(random.integers(5))], "n": n},
        }
        if n % 4:
            payload["maybe"] = (None, [], "there")[n % 3]
        if n % 7 == 0:
            del payload["word"]
        made.append(payload)
    return made
