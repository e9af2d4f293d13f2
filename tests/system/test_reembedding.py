"""A model is upgraded with real processes: both embedders run, two gateways search and ingest, and no search fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.models.tiny import WORDS, build_bi_encoder
from tests.system.running import winnow
from tests.system.single_services import SingleService
from winnow_client import AsyncClient, Document, IngestOutcome, RetrievalKind, SearchMode, SearchResult
from winnow_rpc.faults import Unavailable

COUNT = 400
COMPUTING = ("--engine", "torch", "--device", "cpu")
QUERIES = ["bread and cheese", "the capital of france", "a river to the sea"]


@dataclass
class Upgrade:
    """An index, the embedders of two models, and two gateways that speak to both."""

    directory: Path
    index: SingleService
    former: SingleService
    embedder: SingleService
    gateways: list[SingleService] = field(default_factory=list)

    def gateway(self, embedder: SingleService, former: SingleService | None = None) -> SingleService:
        """Another gateway, which serves."""
        made = SingleService(
            self.directory,
            "winnow_gateway",
            *("--embedder", embedder.address, "--embedder-former", former.address if former else ""),
            *("--index", self.index.address, "--reranker", "127.0.0.1:1"),
            # Small steps, so that there is a while to look at.
            *("--ingest-group-size", "4", "--ingest-groups-in-flight", "2"),
            *("--model-cache-seconds", "1", "--reembed-grace-seconds", "2"),
        )
        self.gateways.append(made)
        made.start()
        return made

    def upgraded_gateway(self) -> SingleService:
        """A gateway that speaks to both embedders."""
        return self.gateway(self.embedder, self.former)


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    tmp_path = tmp_path_factory.mktemp("upgrade")
    models = [build_bi_encoder(tmp_path / f"model{seed}", seed=seed) for seed in (1, 2)]
    embedders = [SingleService(tmp_path, "winnow_embedder", "--model", str(model), *COMPUTING) for model in models]
    index = SingleService(tmp_path, "winnow_index", "--data-dir", str(tmp_path / "index"))
    made = Upgrade(tmp_path, index, *embedders)
    started = [index, *embedders]
    try:
        for service in started:
            service.begin()
        for service in started:
            service.ready()
        yield made
    finally:
        for service in [*made.gateways, *started]:
            service.stop()


def numbered(first: int, count: int, *, version: int = 0) -> list[Document]:
    return [
        Document(id=f"d{n:04}", text=" ".join(random.Random(10_000 * version + n).choices(WORDS, k=9)))
        for n in range(first, first + count)
    ]


async def fill(client: AsyncClient, documents: list[Document], name: str) -> None:
    outcomes = [each.outcome async for each in client.ingest(name, documents)]
    assert set(outcomes) <= {IngestOutcome.INDEXED, IngestOutcome.UNCHANGED}
    assert len(outcomes) == len(documents)


async def find(client: AsyncClient, query: str, name: str) -> SearchResult:
    # By vectors alone: fused ranks are often equal, and then the cut is the order of ids.
    return await client.search(
        name, query, mode=SearchMode.RETRIEVE, retrieval=RetrievalKind.DENSE, exact=True, limit=20
    )


@contextlib.asynccontextmanager
async def searching(client: AsyncClient, name: str, models: list[str]) -> AsyncIterator[None]:
    """Searches all the while; one that fails, or finds less than it should, fails the test."""

    async def run() -> None:
        while True:
            for query in QUERIES:
                result = await find(client, query, name)
                assert len(result.hits) == 20
                assert not result.degradations
                models.append(result.embedder_fingerprint)

    task = asyncio.create_task(run())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def same_as_fresh(client: AsyncClient, name: str, documents: list[Document]) -> None:
    """Every search finds what it finds in a collection that was just filled with the same documents."""
    await client.create_collection(f"{name}-fresh")
    await fill(client, documents, f"{name}-fresh")
    assert (await client.get_collection(name)).document_count == len(documents)
    for query in QUERIES:
        ours, fresh = [await find(client, query, each) for each in (name, f"{name}-fresh")]
        assert ours.embedder_fingerprint == fresh.embedder_fingerprint
        scores = {(hit.document.id, hit.document.text): hit.score for hit in fresh.hits}
        assert {(hit.document.id, hit.document.text): hit.score for hit in ours.hits} == pytest.approx(scores, abs=1e-5)


async def made_with_the_former_model(upgrade: Upgrade, name: str) -> None:
    async with AsyncClient(upgrade.gateway(upgrade.former).address) as before:
        await before.create_collection(name)
        await fill(before, numbered(0, COUNT), name)


async def test_a_model_is_upgraded_and_no_search_fails_and_no_write_is_lost(upgrade: Upgrade) -> None:
    await made_with_the_former_model(upgrade, "docs")
    first, second = upgrade.upgraded_gateway(), upgrade.upgraded_gateway()
    seen: list[list[str]] = [[], []]
    async with AsyncClient(first.address) as one, AsyncClient(second.address) as two:
        former = (await one.get_collection("docs")).embedder_fingerprint
        async with searching(one, "docs", seen[0]), searching(two, "docs", seen[1]):
            reembedding = asyncio.create_task(_reembed(one))
            # Meanwhile documents are changed, added and deleted through the other gateway.
            await fill(two, numbered(0, 40, version=1), "docs")
            await fill(two, numbered(COUNT, 40), "docs")
            assert await two.delete_documents("docs", ids=[f"d{n:04}" for n in range(100, 120)]) == 20
            await reembedding
            await asyncio.sleep(2)
    # The former model is not needed any more.
    async with AsyncClient(upgrade.gateway(upgrade.embedder).address) as after:
        new = (await after.get_collection("docs")).embedder_fingerprint
        assert new != former
        for models in seen:
            # Some by the one, then all by the other.
            assert models == sorted(models, key=lambda model: model == new)
            assert set(models) == {former, new}
        changed = numbered(0, 40, version=1) + numbered(40, 60) + numbered(120, COUNT - 80)
        await same_as_fresh(after, "docs", changed)


async def _reembed(client: AsyncClient) -> None:
    last = [progress async for progress in client.reembed_collection("docs")][-1]
    assert last.complete


async def test_a_gateway_is_killed_while_it_re_embeds_and_the_command_goes_on_by_another(upgrade: Upgrade) -> None:
    await made_with_the_former_model(upgrade, "killed")
    first, second = upgrade.upgraded_gateway(), upgrade.upgraded_gateway()
    seen: list[str] = []
    async with AsyncClient(first.address) as doomed, AsyncClient(second.address) as client:
        async with searching(client, "killed", seen):
            with pytest.raises(Unavailable):
                async for progress in doomed.reembed_collection("killed"):
                    if progress.embedded_document_count >= COUNT // 4:
                        first.kill()
            command = ("collections", "reembed", "killed", "--json", "--gateway", second.address)
            ended = await asyncio.to_thread(winnow, *command, cwd=upgrade.directory)
            assert ended.returncode == 0, ended.stderr
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        assert lines[-1]["complete"]
        assert seen[0] == lines[-1]["former_embedder_fingerprint"]
        assert seen[-1] == lines[-1]["embedder_fingerprint"]
        await same_as_fresh(client, "killed", numbered(0, COUNT))
