"""What was acknowledged is there again, however the index ended; a directory belongs to one process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import models

SIZE = 32


def _points(ids: range) -> list[models.PointStruct]:
    return [models.PointStruct(id=n, vector=[float(n), *[1.0] * (SIZE - 1)], payload={"n": n}) for n in ids]


async def test_kill_9_in_the_middle_of_writes_loses_nothing_acknowledged(index_process: Callable[..., Any]) -> None:
    index = index_process()
    client = index.client()
    await client.create_collection(
        "c",
        vectors_config=models.VectorParams(size=SIZE, distance="Dot"),
        # Low, so that some of the kills fall into a build.
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=100),
    )
    await client.create_payload_index("c", "n", "integer", wait=True)
    acknowledged: set[int] = set()
    deleted: set[int] = set()
    random = np.random.default_rng(1)
    following = 0

    async def write() -> None:
        nonlocal following
        while True:
            ids = range(following, following + 100)
            following += 100
            await client.upsert("c", _points(ids), wait=True)
            acknowledged.update(ids)
            gone = [n for n in ids if n % 10 == 3]
            acknowledged.difference_update(gone)  # until the deletion is acknowledged they may be there or not
            await client.delete("c", models.PointIdsList(points=list(gone)), wait=True)
            deleted.update(gone)

    for _ in range(4):
        writers = [asyncio.create_task(write()) for _ in range(3)]
        await asyncio.sleep(float(random.uniform(0.3, 0.8)))
        index.kill()
        await asyncio.gather(*writers, return_exceptions=True)
        index.start()
        await client.close()
        client = index.client()
        found = {r.id for r in (await client.scroll("c", limit=100_000, with_payload=False))[0]}
        assert acknowledged <= found
        assert not deleted & found
        count = await client.count(
            "c", count_filter=models.Filter(must=[models.HasIdCondition(has_id=list(acknowledged))])
        )
        assert count.count == len(acknowledged)
    assert len(acknowledged) > 500
    assert deleted
    await client.close()


async def test_configuration_survives_a_crash(index_process: Callable[..., Any]) -> None:
    index = index_process()
    client = index.client()
    await client.create_collection(
        "näme with spaces",
        vectors_config={"a": models.VectorParams(size=4, distance="Euclid", on_disk=True)},
        sparse_vectors_config={"s": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=models.HnswConfigDiff(m=24),
        metadata={"fingerprint": "abc", "nested": {"n": 1}},
    )
    await client.create_payload_index(
        "näme with spaces", "t", models.TextIndexParams(type="text", lowercase=True), wait=True
    )
    alias = models.CreateAlias(collection_name="näme with spaces", alias_name="short")
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    before = await client.get_collection("short")
    index.kill()
    index.start()
    await client.close()
    client = index.client()
    after = await client.get_collection("short")
    assert after == before
    assert after.config.metadata == {"fingerprint": "abc", "nested": {"n": 1}}
    assert after.payload_schema["t"].params is not None
    assert [a.alias_name for a in (await client.get_aliases()).aliases] == ["short"]
    await client.close()


async def test_termination_in_the_middle_of_a_build_ends_its_process_and_loses_nothing(
    index_process: Callable[..., Any],
) -> None:
    index = index_process()
    client = index.client()
    await client.create_collection(
        "c",
        vectors_config=models.VectorParams(size=SIZE, distance="Dot"),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10),
    )
    for start in range(0, 6000, 500):
        await client.upsert("c", _points(range(start, start + 500)), wait=True)
    children = await _children(index)
    assert index.stop() == 0
    assert not any(_alive(pid) for pid in children)
    index.start()
    await client.close()
    client = index.client()
    assert (await client.count("c")).count == 6000
    await client.close()


async def _children(index: Any) -> list[int]:
    """Waits for the builder to be there."""
    async with asyncio.timeout(20):
        while True:
            found = _children_now(index.pid)
            if found:
                return [int(pid) for pid in found]
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_builder_is_replaced_and_serving_goes_on(
    index_process: Callable[..., Any], until_green: Callable[..., Awaitable[None]]
) -> None:
    index = index_process("--build-retry-seconds", "0.2")
    client = index.client()
    await client.create_collection(
        "c",
        vectors_config=models.VectorParams(size=SIZE, distance="Dot"),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10),
    )
    for start in range(0, 4000, 500):
        await client.upsert("c", _points(range(start, start + 500)), wait=True)
    for pid in await _children(index):
        os.kill(pid, signal.SIGKILL)
    assert len((await client.query_points("c", query=[1.0] * SIZE, limit=5)).points) == 5
    await until_green(client, "c")
    info = await client.get_collection("c")
    assert info.optimizer_status == models.OptimizersStatusOneOf.OK
    assert info.indexed_vectors_count == 4000
    await client.close()


def _start(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "winnow_index", "--port", "0", "--data-dir", str(data), "--log-format", "json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_a_second_process_on_one_directory_is_told_so(index_process: Callable[..., Any], tmp_path: Path) -> None:
    index_process()
    ended = _start(tmp_path / "data")
    assert ended.returncode == 1
    assert "is in use by another process" in ended.stderr
    assert str(tmp_path / "data") in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # A file in the place of the directory: permissions do not stop the superuser that tests may run as.
    (tmp_path / "data").write_text("not a directory")
    ended = _start(tmp_path / "data")
    assert ended.returncode == 1
    assert f"{tmp_path / 'data'} cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unreadable_aliases_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "aliases.json").write_text("{")
    ended = _start(tmp_path / "data")
    assert ended.returncode == 1
    assert "aliases.json cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_corrupt_collections_leave_the_others_alone(
    index_process: Callable[..., Any], subtests: pytest.Subtests
) -> None:
    index = index_process()
    client = index.client()
    damages = ("config", "current", "generation", "segment")
    for name in ("good", *damages):
        await client.create_collection(name, vectors_config=models.VectorParams(size=SIZE, distance="Dot"))
        await client.upsert(name, _points(range(50)), wait=True)
    assert index.stop() == 0
    folders = {_name(path): path.parent for path in index.data.glob("collections/*/config.json")}
    for damage in damages:
        _damage(folders[damage], damage)
    before = {damage: _listing(folders[damage]) for damage in damages}
    index.start()
    await client.close()
    client = index.client()
    assert (await client.count("good")).count == 50
    # Without its definition, a collection is known by the name of its directory alone.
    names = {damage: folders["config"].name if damage == "config" else damage for damage in damages}
    assert {c.name for c in (await client.get_collections()).collections} == {"good", *names.values()}
    for damage, name in names.items():
        with subtests.test(damage):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.count(name)
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
            assert _listing(folders[damage]) == before[damage], "a corrupt collection is left as it is"
            await client.delete_collection(name)
            assert not folders[damage].exists()
    assert (await client.count("good")).count == 50
    await client.close()


def _name(path: Path) -> str:
    name: str = json.loads(path.read_text())["name"]
    return name


def _damage(folder: Path, damage: str) -> None:
    [generation] = folder.glob("generation-*")
    [segment] = (generation / "segments").iterdir()
    match damage:
        case "config":
            (folder / "config.json").write_text('{"format": 1, "name"')
        case "current":
            (folder / "CURRENT").write_text("generation-000099\n")
        case "generation":
            generation.rename(folder / "lost")
        case "segment":
            (segment / "segment.json").write_text("nonsense")


def _listing(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def _children_now(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
