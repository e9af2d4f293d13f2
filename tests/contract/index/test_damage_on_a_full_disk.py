"""Whether a full disk kept a collection from opening, or damage did, which makes no room better."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from qdrant_client import grpc as pb

from winnow_index.schema import Limits
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration
from winnow_rpc.faults import Fault

MORE_THAN_ANY_DISK = 1 << 60


@pytest.fixture
async def generation(tmp_path: Path) -> Path:
    """Where the only collection of a data directory, `tmp_path`, has its points."""
    store = Store.open(tmp_path, JsonCodec())
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=4, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
    config = configs.from_create(request, limits=Limits(), indexing_threshold=1)
    await store.create("c", WireConfiguration(config))
    found = store.get("c").generation
    await store.close()
    return found


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


async def why_not(folder: Path, *, reserve_bytes: int = MORE_THAN_ANY_DISK) -> str:
    """The reason that is given for not opening the collection."""
    store = Store.open(folder, JsonCodec(), reserve_bytes=reserve_bytes)
    with pytest.raises(Fault) as caught:
        store.get("c")
    await store.close()
    return str(caught.value.reason)


async def test_a_damaged_collection_is_called_damaged_though_the_reserve_is_touched(
    generation: Path, tmp_path: Path
) -> None:
    empty(generation)
    assert await why_not(tmp_path) == "COLLECTION_CORRUPT"


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (-signal.SIGBUS, "", "DISK_FULL"),
        (-signal.SIGSEGV, "", "COLLECTION_CORRUPT"),
        (1, "IO Error: No space left on device (os error 28)", "DISK_FULL"),
        (1, "no segment can be read", "COLLECTION_CORRUPT"),
    ],
)
async def test_how_the_process_ended_that_tried_to_open_it_tells(
    generation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str, reason: str
) -> None:
    ended = subprocess.CompletedProcess([], status, stdout="", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert await why_not(tmp_path) == reason


async def test_where_there_is_room_the_same_signal_tells_of_a_file_cut_short(
    generation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (generation.parent / "OPENING").touch()
    ended = subprocess.CompletedProcess([], -signal.SIGBUS, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert await why_not(tmp_path, reserve_bytes=1) == "COLLECTION_CORRUPT"
