"""Everyone who embeds and reranks here, behind one interface: our services, our engine alone, and the peers."""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from winnow_lab.bench_figures import Vectors
from winnow_lab.bench_inference.calls import Answered, EmbedderCalls, RerankerCalls, short_precision
from winnow_lab.bench_inference.plan import GROUP, Plan
from winnow_lab.bench_inference.services import answering, running_service
from winnow_lab.bench_inference.workers import Worker, running_worker
from winnow_rpc.faults import Fault

REFERENCE = "sentence-transformers"
"""Name of the contestant that all others are compared with."""

_IN_PROCESS = "winnow_lab.bench_inference.in_process"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a contestant did, and how long it took by its own client's clock."""

    seconds: float
    vectors: Vectors | None = None
    """One row a text, if they were asked for."""
    scores: list[float] = field(default_factory=list)
    """One a document, in their order."""
    answers: list[Answered] = field(default_factory=list)
    """What our services said of their work."""
    batches: list[tuple[int, int, int]] = field(default_factory=list)
    """Of our engine in process: sequences, tokens of the longest, tokens of all."""


class Contestant(Protocol):
    """Someone who embeds or reranks."""

    @property
    def name(self) -> str:
        """Its name in the tables."""
        ...

    @property
    def precision(self) -> str:
        """Engine and number format."""
        ...

    @property
    def version(self) -> str:
        """Its version and its engine's; empty for our own."""
        ...

    async def embed(self, texts: Sequence[str], *, vectors: bool) -> Done:
        """Embeds the texts, sent in this order."""
        ...

    async def rerank(self, query: str, documents: Sequence[str]) -> Done:
        """Scores the documents."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A contestant that can be started."""

    name: str
    """Its name in the tables."""
    start: Callable[[], AbstractAsyncContextManager[Contestant]]
    """Starts it, and ends it at the end."""


def entrants(plan: Plan, kind: str) -> list[Entrant]:
    """Everyone for a kind of model, "bi" or "cross"; the reference first, if it is there."""
    made: list[Entrant] = []
    if plan.peers:
        made += _peers(plan, kind, plan.peers)
    for dtype in plan.dtypes:
        made.append(Entrant(name=ours(dtype), start=_service(plan, kind, dtype)))
        made.append(Entrant(name=in_process(dtype), start=_engine(plan, kind, dtype)))
    return made


def ours(dtype: str) -> str:
    """Name of our service."""
    return f"winnow {dtype}"


def in_process(dtype: str) -> str:
    """Name of our engine alone, in a process without a service around it."""
    return f"engine alone, {dtype}"


async def start_all(
    stack: AsyncExitStack, who: Sequence[Entrant], tell: Callable[[str], None]
) -> tuple[list[Contestant], dict[str, str]]:
    """Starts everyone, one after the other; those who could not, with the reason in one sentence."""
    started: list[Contestant] = []
    failed: dict[str, str] = {}
    for entrant in who:
        tell(f"start {entrant.name}")
        try:
            started.append(await stack.enter_async_context(entrant.start()))
        except Fault as fault:
            failed[entrant.name] = fault.message
    return started, failed


def _peers(plan: Plan, kind: str, peers: Path) -> list[Entrant]:
    model = str(plan.model(kind))
    main, infinity = (peers.absolute() / name / "bin" / "python" for name in ("main", "infinity"))
    onnx = {"kind": kind, "model": model, "cache": str(peers.absolute() / "onnx"), "dimension": plan.models.dimension}

    def entrant(name: str, precision: str, python: Path, module: str, **load: Any) -> Entrant:
        return Entrant(name=name, start=lambda: _peer(name, precision, python, module, load))

    torch = "sentence_transformers_peer"
    return [
        entrant(REFERENCE, "torch f32", main, torch, kind=kind, model=model, dtype="float32"),
        entrant(f"{REFERENCE} bf16", "torch bf16", main, torch, kind=kind, model=model, dtype="bfloat16"),
        entrant("fastembed", "onnxruntime f32", main, "fastembed_peer", **onnx),
        entrant("infinity", "torch f32", infinity, "infinity_peer", kind=kind, model=model),
    ]


@asynccontextmanager
async def _peer(
    name: str, precision: str, python: Path, module: str, load: dict[str, Any]
) -> AsyncIterator[Contestant]:
    async with running_worker(name, python=python, module=module) as worker:
        loaded = await worker.call("load", **load)
        yield _Peer(name, precision, f"{loaded['version']} on {loaded['engine']}", worker)


def _service(plan: Plan, kind: str, dtype: str) -> Callable[[], AbstractAsyncContextManager[Contestant]]:
    @asynccontextmanager
    async def start() -> AsyncIterator[Contestant]:
        service = "embedder" if kind == "bi" else "reranker"
        async with running_service(service, plan.service_flags(kind, dtype)) as running:
            calls = EmbedderCalls(running.address) if kind == "bi" else RerankerCalls(running.address)
            async with calls:
                with answering(service):
                    precision = await calls.precision()
                yield _Service(ours(dtype), precision, calls)

    return start


def _engine(plan: Plan, kind: str, dtype: str) -> Callable[[], AbstractAsyncContextManager[Contestant]]:
    @asynccontextmanager
    async def start() -> AsyncIterator[Contestant]:
        name = in_process(dtype)
        async with running_worker(name, python=Path(sys.executable), module=_IN_PROCESS) as worker:
            loaded = await worker.call("load", kind=kind, settings=plan.settings(kind, dtype))
            yield _Engine(name, short_precision(loaded["engine"], loaded["dtype"], streams=loaded["lanes"]), worker)

    return start


class _Peer:
    """Another engine."""

    def __init__(self, name: str, precision: str, version: str, worker: Worker) -> None:
        self.name = name
        self.precision = precision
        self.version = version
        self._worker = worker

    async def embed(self, texts: Sequence[str], *, vectors: bool) -> Done:
        return _done(await self._worker.call("embed", texts=list(texts), vectors=vectors))

    async def rerank(self, query: str, documents: Sequence[str]) -> Done:
        answer = await self._worker.call("rerank", query=query, documents=list(documents))
        return Done(seconds=answer["seconds"], scores=answer["scores"])


class _Engine:
    """Our engine, without the service around it. Tokenization is not in its time."""

    def __init__(self, name: str, precision: str, worker: Worker) -> None:
        self.name = name
        self.precision = precision
        self.version = ""
        self._worker = worker

    async def embed(self, texts: Sequence[str], *, vectors: bool) -> Done:
        await self._worker.call("tokenize_texts", texts=list(texts), query=False)
        return _done(await self._worker.call("bulk", group=GROUP, vectors=vectors))

    async def rerank(self, query: str, documents: Sequence[str]) -> Done:
        await self._worker.call("tokenize_pairs", query=query, documents=list(documents))
        done = _done(await self._worker.call("bulk", group=len(documents), vectors=True))
        assert done.vectors is not None
        return Done(seconds=done.seconds, scores=done.vectors[:, 0].tolist(), batches=done.batches)


class _Service:
    """Our service."""

    def __init__(self, name: str, precision: str, calls: EmbedderCalls | RerankerCalls) -> None:
        self.name = name
        self.precision = precision
        self.version = ""
        self._calls = calls

    async def embed(self, texts: Sequence[str], *, vectors: bool) -> Done:
        assert isinstance(self._calls, EmbedderCalls)
        groups = [texts[start : start + GROUP] for start in range(0, len(texts), GROUP)]
        with answering(self.name):
            seconds, answers = await self._calls.embed_stream(groups)
        rows = np.concatenate([answer.vectors for answer in answers]) if vectors else None
        return Done(seconds=seconds, vectors=rows, answers=answers)

    async def rerank(self, query: str, documents: Sequence[str]) -> Done:
        assert isinstance(self._calls, RerankerCalls)
        with answering(self.name):
            seconds, answer = await self._calls.rerank(query, documents)
        return Done(seconds=seconds, scores=answer.scores, answers=[answer])


def _done(answer: dict[str, Any]) -> Done:
    vectors = None
    if answer["vectors"]:
        numbers = np.frombuffer(base64.b64decode(answer["vectors"]), dtype="<f4")
        vectors = numbers.reshape(-1, answer["dimension"])
    return Done(
        seconds=answer["seconds"], vectors=vectors, batches=[tuple(batch) for batch in answer.get("batches", [])]
    )
