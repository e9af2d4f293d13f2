"""A restore that was ended in its middle can be begun again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from qdrant_client import grpc as pb

from winnow_index.restoring import restore
from winnow_index.schema import Limits
from winnow_index.snapshots import Snapshots
from winnow_index.store import Store
from winnow_index.wire import configs
from winnow_index.wire.definitions import JsonCodec, WireConfiguration


class Killed(BaseException):
    """The process ends here: nothing is cleared away."""


async def _snapshot(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "source", JsonCodec())
    vectors = pb.VectorsConfig(params=pb.VectorParams(size=2, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=vectors)
    await store.create("c", WireConfiguration(configs.from_create(request, limits=Limits(), indexing_threshold=0)))
    await store.change_aliases(lambda aliases: {**aliases, "live": "c"})
    made = await Snapshots(store, tmp_path / "snapshots").create()
    await store.close()
    return tmp_path / "snapshots" / made.name


@pytest.mark.parametrize("renamed", [0, 1])
async def test_a_restore_that_was_killed_can_be_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    snapshot, data = await _snapshot(tmp_path), tmp_path / "data"
    rename, left = Path.rename, [renamed]

    def killed_later(self: Path, target: Path) -> Path:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return rename(self, target)

    with monkeypatch.context() as process:
        process.setattr(Path, "rename", killed_later)
        process.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        with pytest.raises(Killed):
            restore(snapshot, data)
    assert restore(snapshot, data) == 1
    store = Store.open(data, JsonCodec())
    assert store.get("live").name == "c"
    await store.close()
    assert not (data / ".restoring").exists()
