"""What waits for a graph is seen while it waits, and a build when it has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from tests.contract.observability.conftest import Scrape, scrape, serving
from winnow_index.collection import Collection
from winnow_index.optimizing import Optimizer
from winnow_index.serving import open_service
from winnow_index.settings import IndexSettings

SIZE, COUNT = 32, 200


async def fill(address: str, *, threshold: int) -> None:
    client = AsyncQdrantClient(
        host="127.0.0.1", grpc_port=int(address.rpartition(":")[2]), prefer_grpc=True, check_compatibility=False
    )
    await client.create_collection(
        "docs",
        vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.COSINE),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
    )
    vectors = np.random.default_rng(0).normal(size=(COUNT, SIZE))
    points = [models.PointStruct(id=n, vector=vector.tolist()) for n, vector in enumerate(vectors)]
    await client.upsert("docs", points, wait=True)
    await client.close()


def held(seen: Scrape) -> dict[str, float]:
    return {name: seen.value(f"winnow_index_{name}_points", collection="docs") for name in ("indexed", "lag")}


@pytest.mark.timeout(240)
async def test_a_build_is_counted_and_leaves_no_lag(tmp_path: Path) -> None:
    settings = IndexSettings(port=0, data_dir=tmp_path, metrics_port=0, probe_seconds=600, drain_seconds=0)
    async with serving(open_service(settings), settings) as server:
        await fill(server.address, threshold=1)
        async with asyncio.timeout(200):
            while not (seen := await scrape(server)).value("winnow_index_builds_total", outcome="built"):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.1)
            # The optimizer counts what its build has left when it looks again.
            while held(seen)["lag"]:
                await asyncio.sleep(0.1)
                seen = await scrape(server)
    assert held(seen) == {"indexed": COUNT, "lag": 0}
    assert seen.value("winnow_index_builds_total", outcome="abandoned") == 0
    assert seen.value("winnow_index_build_seconds_count") == 1
    assert seen.value("winnow_index_build_seconds_sum") > 0


@pytest.mark.parametrize(("threshold", "lag"), [(1, COUNT), (1_000_000, 0)])
async def test_points_lag_only_where_a_graph_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: int, lag: int
) -> None:
    async def never_ends(_optimizer: Optimizer, _collection: Collection) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Optimizer, "_build", never_ends)
    settings = IndexSettings(port=0, data_dir=tmp_path, metrics_port=0, probe_seconds=600, drain_seconds=0)
    async with serving(open_service(settings), settings) as server:
        await fill(server.address, threshold=threshold)
        seen = await scrape(server)
    assert seen.value("winnow_index_points", collection="docs") == COUNT
    assert held(seen) == {"indexed": 0, "lag": lag}
