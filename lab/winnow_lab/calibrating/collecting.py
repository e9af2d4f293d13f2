"""Collects candidates with what every stage thought of them, by one deep search a query over services started here.

What was collected is kept, query by query: a run that was cut off goes on where it was, and learning anew needs no
service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress

from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_client import (
    AsyncClient,
    ClientConfig,
    DepthPolicy,
    Hit,
    RankingPolicy,
    RetrievalKind,
    SearchMode,
    StageResult,
)
from winnow_client.cli.processes_stack import RERANKER, Stack, StackConfig
from winnow_gateway.ordering import StagePlace
from winnow_inference.models.weights import sha256_of
from winnow_lab.calibrating.candidates import (
    Candidate,
    CandidateFile,
    JudgedCandidates,
    Source,
    read_candidates,
)
from winnow_lab.data.beir import JudgedQuery, content_of, has_text, read_documents
from winnow_lab.data.judged import read_judged_set
from winnow_lab.filling import collection_of, fill
from winnow_lab.hashing import hash_of
from winnow_lab.line_file import whole_lines
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import FailedPrecondition, Fault, NotFound

# Two, so that embedding and retrieval of one go on while another is reranked.
_SEARCHES_AT_ONCE = 2
_PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SetSplit:
    """A split of a judged set in the BEIR layout."""

    folder: Path
    split: str

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.folder.name}:{self.split}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """What to collect, and with what."""

    reranker: Path
    """Folder of the cross-encoder."""
    embedder: str | None
    """Path or hub id of the bi-encoder; None: the default."""
    depth: int
    """Candidates of a query."""
    queries: int
    """Queries of a split, at most; the same ones each time."""
    data: Path
    """Where the index keeps the collections."""
    cache: Path
    """Where what was collected is kept."""
    skip_missing: bool = False
    """Whether judgements of what is not there are left out."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The candidates of a split's queries."""

    split: SetSplit
    source: Source
    queries: Sequence[JudgedCandidates]


Services = Callable[[Collecting], AbstractAsyncContextManager[tuple[AsyncClient, str]]]
"""Starts what is searched: a client of the gateway, and the name of the function that makes the reranker's scores."""


async def collect(
    splits: Sequence[SetSplit], collecting: Collecting, progress: Progress, *, services: Services | None = None
) -> list[Collected]:
    """The candidates of every split, from the cache or else from searches; no service is started for the cache.

    Raises the faults of `read_judged_set`; FailedPrecondition if the model is changed meanwhile, a cache was made with
    another bi-encoder, or a set cannot be indexed whole.
    """
    wanted = {split: _sample(split, collecting) for split in splits}
    paths = {split: cache_path(split, collecting) for split in splits}
    missing = {}
    for split, queries in wanted.items():
        have = _cached(paths[split], queries)
        missing[split] = [query for query in queries if query.id not in have]
    if any(missing.values()):
        async with (services or started_services)(collecting) as (client, activation):
            names = collections_of(split.folder for split in splits)
            for folder in dict.fromkeys(split.folder for split, queries in missing.items() if queries):
                documents = [document for document in read_documents(folder) if has_text(document)]
                await fill(client, names[folder], documents, progress)
            for split, queries in missing.items():
                if queries:
                    searched = _Searched(client, names[split.folder], activation)
                    await _collect_split(searched, split, queries, collecting.depth, paths[split], progress)
    return [_cut(split, queries, paths[split]) for split, queries in wanted.items()]


def collections_of(folders: Iterable[Path]) -> dict[Path, str]:
    """Folder → the collection that its set is indexed in, of the sets of one command: no two have one in common.

    Those whose names make the same one bear a hash of their path too: sets of one name, and `my set` beside `my-set`.
    """
    named: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        named.setdefault(collection_of(folder.name), []).append(folder)
    return {
        folder: name if len(alike) == 1 else collection_of(f"{_hash_of_path(folder)}-{name}")
        for name, alike in named.items()
        for folder in alike
    }


def _hash_of_path(folder: Path) -> str:
    return hash_of([str(folder.resolve())])[:8]


def _sample(split: SetSplit, collecting: Collecting) -> list[JudgedQuery]:
    judged = list(read_judged_set(split.folder, split.split, skip_missing=collecting.skip_missing).queries)
    # Drawn one after another, so that a larger sample holds the smaller one, and its cache goes on being used.
    random.Random(0).shuffle(judged)
    return judged[: collecting.queries]


def cache_path(split: SetSplit, collecting: Collecting) -> Path:
    """The cache's file: its name changes with whatever changes the scores, the texts of the documents among it."""
    path = collecting.reranker / "model.safetensors"
    if not path.is_file():
        raise NotFound(f"there is no {path}: {collecting.reranker} holds no cross-encoder", reason="MODEL_NOT_FOUND")
    embedder = collecting.embedder
    if embedder and Path(embedder).is_dir():
        embedder = _files_hash(*sorted(Path(embedder).rglob("*.safetensors")))
    made_from = [_files_hash(path, path.with_name("config.json")), embedder, content_of(read_documents(split.folder))]
    name = f"{split.folder.name}-{split.split}-{collecting.depth}-{hash_of(made_from)[:12]}.jsonl"
    return collecting.cache / name


def _files_hash(*paths: Path) -> str:
    return hash_of(sha256_of(path) for path in paths if path.is_file())


def _cached(path: Path, queries: Sequence[JudgedQuery]) -> dict[str, JudgedCandidates]:
    """Query's id → what was collected for it, of the queries whose text is the same; with their judgements of now."""
    # A kill in the first moment leaves no whole line.
    if not whole_lines(path):
        return {}
    asked = {query.id: query for query in queries}
    return {
        each.query_id: replace(each, judgements=asked[each.query_id].judgements)
        for each in read_candidates(path)[1]
        if each.query_id in asked and asked[each.query_id].text == each.query
    }


def _cut(split: SetSplit, queries: Sequence[JudgedQuery], path: Path) -> Collected:
    found = _cached(path, queries)
    return Collected(split, read_candidates(path)[0], [found[query.id] for query in queries])


@asynccontextmanager
async def started_services(collecting: Collecting) -> AsyncIterator[tuple[AsyncClient, str]]:
    """The four services with the cross-encoder, started here and stopped at the end."""
    config = StackConfig(
        data=collecting.data,
        gateway_port=0,
        index_port=0,
        embedder_port=0,
        reranker_port=0,
        model=collecting.embedder,
        reranker_model=str(collecting.reranker.resolve()),
    )
    client_config = ClientConfig(timeout_seconds=_PATIENCE_SECONDS)
    async with Stack(config) as stack:
        activation = await activation_of(stack.addresses[RERANKER])
        async with AsyncClient(stack.gateway_address, config=client_config) as client:
            yield client, activation


async def activation_of(reranker: str) -> str:
    """Name of the function that makes the scores of the reranker at an address. Raises FailedPrecondition if it has
    several."""
    async with open_channel(ChannelSettings(target=reranker, idempotent={})) as channel:
        stub = reranker_pb2_grpc.RerankerServiceStub(channel)
        model = (await stub.GetModel(reranker_pb2.GetModelRequest(), timeout=60)).model
    if len(model.labels) != 1:
        raise FailedPrecondition(
            f"the model has {len(model.labels)} labels; only one with a single label reranks",
            reason="MODEL_CANNOT_RERANK",
        )
    return str(model.activation)


@dataclass(frozen=True, slots=True)
class _Searched:
    """What the queries of a split are sent to."""

    client: AsyncClient
    collection: str
    activation: str


async def _collect_split(
    searched: _Searched,
    split: SetSplit,
    queries: Sequence[JudgedQuery],
    depth: int,
    path: Path,
    progress: Progress,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    task = progress.add_task(f"search {split.name}", total=len(queries))
    turns = asyncio.Semaphore(_SEARCHES_AT_ONCE)
    with CandidateFile(path) as file:

        async def one(query: JudgedQuery) -> None:
            async with turns:
                file.add(*await _search(searched, split, query, depth))
            progress.advance(task)

        try:
            async with asyncio.TaskGroup() as group:
                for query in queries:
                    group.create_task(one(query))
        except* Fault as faults:
            raise faults.exceptions[0] from None


async def _search(
    searched: _Searched, split: SetSplit, query: JudgedQuery, depth: int
) -> tuple[Source, JudgedCandidates]:
    result = await searched.client.search(
        searched.collection,
        query.text,
        limit=depth,
        depth=depth,
        depth_policy=DepthPolicy.FLOOR,
        mode=SearchMode.TWO_STAGE,
        retrieval=RetrievalKind.HYBRID,
        ranking_policy=RankingPolicy.RERANKER,
        require_rerank=True,
        omit_text=True,
        omit_metadata=True,
    )
    if result.retrieval_kind is not RetrievalKind.HYBRID:
        raise FailedPrecondition(
            f"the search for {query.text!r} was not hybrid, but {result.retrieval_kind.value}: "
            + "; ".join(each.message for each in result.degradations),
            reason="NOT_HYBRID",
        )
    source = Source(
        set=split.folder.name,
        split=split.split,
        depth=depth,
        reranker_fingerprint=result.reranker_fingerprint,
        embedder_fingerprint=result.embedder_fingerprint,
        activation=searched.activation,
    )
    retrieved = sorted(result.hits, key=lambda hit: hit.retrieval.rank if hit.retrieval else 0)
    return source, JudgedCandidates(
        query_id=query.id,
        query=query.text,
        judgements=query.judgements,
        candidates=tuple(_candidate(hit) for hit in retrieved),
    )


def _candidate(hit: Hit) -> Candidate:
    if hit.rerank is None:
        raise FailedPrecondition(f"{hit.document.id} was not reranked", reason="NOT_RERANKED")
    return Candidate(id=hit.document.id, rerank=hit.rerank.score, dense=_place(hit.dense), lexical=_place(hit.lexical))


def _place(stage: StageResult | None) -> StagePlace | None:
    return StagePlace(stage.score, stage.rank) if stage else None
