"""A snapshot that was taken while writes went on, restored into an empty folder, holds all that it promised."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb

from winnow_index.restoring import restore
from winnow_lab.certificates import Authority
from winnow_rpc.faults import DataLoss, FailedPrecondition, InvalidArgument

SIZE = 32


def _points(ids: range) -> list[models.PointStruct]:
    return [models.PointStruct(id=n, vector=[float(n), *[1.0] * (SIZE - 1)], payload={"n": n}) for n in ids]


async def _create(client: AsyncQdrantClient, name: str, *, threshold: int = 10_000) -> None:
    await client.create_collection(
        name,
        vectors_config=models.VectorParams(size=SIZE, distance="Dot"),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
        metadata={"made": name},
    )
    await client.create_payload_index(name, "n", "integer", wait=True)


def _restore(snapshot: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """As docs/backup.md says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    return subprocess.run(
        [sys.executable, "-m", "winnow_index.restore_snapshot", "--snapshot", str(snapshot)],
        env=environment | {"WINNOW_INDEX_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _config(data: Path, *, of: str = "c") -> Path:
    """The definition of a collection."""
    [found] = [path for path in data.glob("collections/*/config.json") if f'"{of}"' in path.read_text()]
    return found


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def _ids(client: AsyncQdrantClient, name: str) -> set[int]:
    return {int(r.id) for r in (await client.scroll(name, limit=100_000, with_payload=False))[0]}


async def test_what_was_acknowledged_before_a_snapshot_is_in_it_while_writes_go_on(
    index_process: Callable[..., Any], tmp_path: Path
) -> None:
    index = index_process()
    client = index.client()
    # Low, so that graphs are built and swapped in the middle of the copying.
    await _create(client, "c", threshold=50)
    acknowledged: set[int] = set()
    deleted: set[int] = set()
    following = 0
    in_order: list[int] = []
    known_at: dict[int, int] = {}

    async def write() -> None:
        nonlocal following
        while True:
            ids = range(following, following + 50)
            following += 50
            known_at[ids[0]] = len(in_order)
            await client.upsert("c", _points(ids), wait=True)
            acknowledged.update(set(ids) - {ids[3]})
            in_order.extend(set(ids) - {ids[3]})
            await client.delete("c", models.PointIdsList(points=[ids[3]]), wait=True)
            deleted.add(ids[3])

    writers = [asyncio.create_task(write()) for _ in range(3)]
    promises: list[tuple[str, set[int], set[int], int]] = []
    for _ in range(2):
        await asyncio.sleep(0.4)
        before = (set(acknowledged), set(deleted))
        made = await client.create_full_snapshot()
        assert made is not None
        promises.append((made.name, *before, following))
    index.kill()
    await asyncio.gather(*writers, return_exceptions=True)
    await client.close()
    shutil.move(index.data / "snapshots", tmp_path / "elsewhere")
    shutil.rmtree(index.data)

    for name, promised, gone, sent in promises:
        assert promised, "writes had been acknowledged before each snapshot"
        data = tmp_path / name
        restore(tmp_path / "elsewhere" / name, data)
        restored = index_process(data=data)
        client = restored.client()
        found = await _ids(client, "c")
        assert promised <= found
        assert not gone & found
        assert found <= set(range(sent))
        # One moment: who is in it brought along all that had been acknowledged before it was sent.
        latest = max(known_at[n - n % 50] for n in found)
        assert set(in_order[:latest]) <= found
        # And whole: no point has a vector or a payload of another moment.
        records, _ = await client.scroll("c", limit=100_000, with_payload=True, with_vectors=True)
        for record in records:
            assert record.payload == {"n": record.id}
            assert record.vector == [float(record.id), *[1.0] * (SIZE - 1)]
        for ids in ({3}, promised):
            condition = models.FieldCondition(key="n", match=models.MatchAny(any=sorted(ids)))
            counted = await client.count("c", count_filter=models.Filter(must=[condition]))
            assert counted.count == len(ids & found)
        [hit] = (await client.query_points("c", query=[1.0, *[0.0] * (SIZE - 1)], limit=1)).points
        assert hit.id == max(found)
        # It is an index like any other.
        await client.upsert("c", _points(range(1_000_000, 1_000_001)), wait=True)
        assert await _ids(client, "c") == found | {1_000_000}
        await client.close()
        restored.kill()
    assert len(promises[-1][1]) > 300


async def test_a_snapshot_holds_every_collection_its_definition_and_aliases(
    index_process: Callable[..., Any], tmp_path: Path
) -> None:
    index = index_process()
    client = index.client()
    for name in ("one", "two", "gone"):
        await _create(client, name)
        await client.upsert(name, _points(range(len(name))), wait=True)
    for alias, target in (("first", "one"), ("former", "gone")):
        action = models.CreateAlias(collection_name=target, alias_name=alias)
        await client.update_collection_aliases([models.CreateAliasOperation(create_alias=action)])
    await client.delete_collection("gone")
    before = [await client.get_collection(name) for name in ("first", "two")]
    made = await client.create_full_snapshot()
    assert made is not None
    index.kill()
    await client.close()
    ended = await asyncio.to_thread(_restore, index.data / "snapshots" / made.name, tmp_path / "restored")
    assert ended.stdout == f"restored 2 collections to {tmp_path / 'restored'}\n", ended.stderr
    restored = index_process(data=tmp_path / "restored")
    client = restored.client()
    assert [each.name for each in (await client.get_collections()).collections] == ["one", "two"]
    assert [a.alias_name for a in (await client.get_aliases()).aliases] == ["first"]
    assert [await client.get_collection(name) for name in ("first", "two")] == before
    await client.close()


async def test_snapshots_are_listed_and_deleted_by_name(client: AsyncQdrantClient) -> None:
    await _create(client, "c")
    made = [await client.create_full_snapshot() for _ in range(2)]
    listed = await client.list_full_snapshots()
    assert [each.name for each in listed] == [each.name for each in made if each]
    assert all(each.size > 0 and len(each.checksum or "") == 64 for each in listed)
    await client.delete_full_snapshot(listed[0].name)
    assert [each.name for each in await client.list_full_snapshots()] == [listed[1].name]
    for name in (listed[0].name, "../collections", ""):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.delete_full_snapshot(name)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert len((await client.get_collections()).collections) == 1


async def test_a_snapshot_that_would_lack_an_unreadable_collection_is_refused(
    index_process: Callable[..., Any],
) -> None:
    index = index_process()
    client = index.client()
    await _create(client, "good")
    await _create(client, "bad")
    index.stop()
    (_config(index.data, of="bad").parent / "CURRENT").write_text("generation-000099\n")
    index.start()
    await client.close()
    client = index.client()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create_full_snapshot()
    assert refused.value.code() == grpc.StatusCode.DATA_LOSS
    assert "`bad`" in str(refused.value.details())
    assert await client.list_full_snapshots() == []
    assert _names_in(index.data / "snapshots") == []
    await client.close()


async def test_remains_of_an_interrupted_snapshot_are_gone_after_a_start(
    index_process: Callable[..., Any], tmp_path: Path
) -> None:
    remains = tmp_path / "data" / "snapshots" / ".new-full-snapshot"
    remains.mkdir(parents=True)
    (remains / "half").write_text("of it")
    index = index_process()
    assert _names_in(remains.parent) == []
    client = index.client()
    assert await client.list_full_snapshots() == []
    await client.close()


async def test_snapshots_of_one_collection_are_not_offered(stub: Callable[[str], Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub("Snapshots").Create(pb.CreateSnapshotRequest(collection_name="c"))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_the_command_takes_a_snapshot_and_keeps_as_many_as_it_is_told(
    index_process: Callable[..., Any], tmp_path: Path
) -> None:
    index = index_process("--snapshots-dir", str(tmp_path / "kept"))
    client = index.client()
    await _create(client, "c")
    await client.close()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    environment |= {"WINNOW_INDEX_PORT": str(index.port), "WINNOW_INDEX_HOST": "0.0.0.0"}
    environment |= {"WINNOW_INDEX_SNAPSHOTS_DIR": str(tmp_path / "kept"), "WINNOW_INDEX_DATA_DIR": str(index.data)}

    def take(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "winnow_index.take_snapshot", *flags]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    taken = [await asyncio.to_thread(take, "--keep", "1") for _ in range(2)]
    assert [each.returncode for each in taken] == [0, 0], taken[-1].stderr
    paths = [Path(each.stdout.strip()) for each in taken]
    assert _names_in(tmp_path / "kept") == [paths[1].name]
    assert (paths[1] / "SHA256SUMS").is_file()
    index.stop()
    alone = await asyncio.to_thread(take)
    assert alone.returncode == 1
    assert "Traceback" not in alone.stderr


async def test_the_command_speaks_tls_where_the_index_does(index_process: Callable[..., Any], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    pair = authority.issue("index")
    tls = {"TLS_CERTIFICATE": pair.certificate, "TLS_KEY": pair.key, "TLS_CLIENT_CA": authority.file}
    index = index_process(*(part for name, file in tls.items() for part in (_flag(name), str(file))))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    environment |= {f"WINNOW_INDEX_{name}": str(file) for name, file in tls.items()}
    environment |= {"WINNOW_INDEX_PORT": str(index.port), "WINNOW_INDEX_DATA_DIR": str(index.data)}
    command = [sys.executable, "-m", "winnow_index.take_snapshot"]
    taken = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert taken.returncode == 0, taken.stderr
    assert (Path(taken.stdout.strip()) / "SHA256SUMS").is_file()


def _flag(setting: str) -> str:
    return "--" + setting.lower().replace("_", "-")


@pytest.fixture
async def snapshot(index_process: Callable[..., Any], tmp_path: Path) -> Path:
    """A small one, of an index that has ended."""
    index = index_process()
    client = index.client()
    await _create(client, "c")
    await client.upsert("c", _points(range(10)), wait=True)
    made = await client.create_full_snapshot()
    assert made is not None
    await client.close()
    index.stop()
    return index.data / "snapshots" / made.name


async def test_a_damaged_snapshot_is_refused_by_the_file_and_leaves_nothing(snapshot: Path, tmp_path: Path) -> None:
    config = _config(snapshot)
    target = tmp_path / "target"
    whole = config.read_text()
    config.write_text(whole.replace('"c"', '"d"'))
    with pytest.raises(DataLoss, match=r"config\.json is not as it was"):
        restore(snapshot, target)
    config.unlink()
    with pytest.raises(DataLoss, match=r"config\.json is not as it was"):
        restore(snapshot, target)
    config.write_text(whole)
    (config.parent / "more").write_text("added")
    with pytest.raises(DataLoss, match="more is not as it was"):
        restore(snapshot, target)
    assert _names_in(target) == ["LOCK"]
    (config.parent / "more").unlink()
    assert restore(snapshot, target) == 1


async def test_a_directory_with_collections_or_in_use_is_not_overwritten(
    snapshot: Path, index_process: Callable[..., Any], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    before = _names_in(data)
    with pytest.raises(FailedPrecondition, match="holds collections already"):
        restore(snapshot, data)
    assert _names_in(data) == before
    index_process(data=tmp_path / "running")
    with pytest.raises(FailedPrecondition, match="in use by another process"):
        restore(snapshot, tmp_path / "running")
    with pytest.raises(InvalidArgument, match="is no snapshot"):
        restore(tmp_path, tmp_path / "target")
