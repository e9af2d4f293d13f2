"""Runs an evaluation: opens what answers, collects every query's answer, judges, keeps."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rich.progress import Progress

from winnow_client import AsyncClient, ClientConfig
from winnow_client.cli.processes_stack import Stack, StackConfig
from winnow_gateway.ordering import Fusion, Mixing
from winnow_gateway.planning import MAX_EXHAUSTIVE
from winnow_gateway.qdrant_retrieval import FUSED_DEPTH
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Asking, Recommended, activation_told
from winnow_lab.evaluating.in_process import InProcess
from winnow_lab.evaluating.judging import Judged, Report, check_baseline, estimated, measure
from winnow_lab.evaluating.keeping import keep, new_folder
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.evaluating.systems import System, systems
from winnow_lab.evaluating.through_gateway import CALL_SECONDS, ThroughGateway
from winnow_lab.evaluating.unfinished import UnfinishedAnswers
from winnow_lab.writing import written
from winnow_rpc.faults import InvalidArgument


class Source(Protocol):
    """What answers."""

    @property
    def recommended(self) -> Recommended:
        """What the cross-encoder's configuration recommends; known once `identify` was called."""
        ...

    @property
    def description(self) -> Mapping[str, str]:
        """How and by what models, for the report."""
        ...

    async def identify(self, judged: JudgedSet, asking: Asking, progress: Progress) -> Mapping[str, str]:
        """Makes ready what will be searched, and says all that decides an answer but set and asking: models, …"""
        ...

    def answers(self, judged: JudgedSet, asking: Asking, progress: Progress) -> AsyncGenerator[Answer, None]:
        """One answer a query, in the set's order; after `identify`, of the same set or of some of its queries."""
        ...


@dataclass(frozen=True, kw_only=True)
class Where:
    """What is to answer."""

    in_process: bool = False
    gateway: ClientConfig | None = None
    """A gateway that runs; None: services are started here, unless `in_process`."""
    collection: str = ""
    """Of the gateway's, searched as it is."""
    model: str = ""
    """Bi-encoder by path or hub id, for what is started here; empty: the default."""
    reranker_model: str = ""
    """The same of the cross-encoder."""
    data: Path = Path(".winnow/evaluate/index")
    """Where services started here keep their index."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be compared."""

    asking: Asking
    depths: Sequence[int]
    mixings: Sequence[Mixing] = ()
    """Judged beside the one that the model recommends."""
    fusions: Sequence[Fusion] = ()
    """Judged beside the one that is asked for."""
    k: int = 10
    baseline: str = HYBRID


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came of one set."""

    report: Report
    judged: Judged
    answers: Sequence[Answer]
    unfinished: UnfinishedAnswers | None = None
    """Where the answers were kept meanwhile."""

    def forget(self) -> None:
        """Nothing will have to go on from these answers: removes what was kept for an interruption."""
        if self.unfinished:
            self.unfinished.forget()

    def keep(self, out: Path) -> Path:
        """Keeps it in a folder of its own, and says which."""
        folder = new_folder(out, f"{self.report.name}-{self.report.split}")
        with written(folder):
            keep(folder, self.report, self.judged, self.answers)
        return folder


@asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Source]:
    """What answers, open."""
    if where.in_process:
        async with InProcess(model=where.model, reranker_model=where.reranker_model) as models:
            yield models
        return
    if where.gateway is not None:
        config = replace(where.gateway, timeout_seconds=CALL_SECONDS)
        async with AsyncClient(config=config) as client:
            # Here and now, before a set is read, if nobody is there.
            async for _ in client.list_collections(timeout=30.0):
                break
            yield ThroughGateway(client, where.gateway.target, where.collection)
        return
    # Vectors of different models cannot share an index.
    folder = where.data / hashlib.sha256(where.model.encode()).hexdigest()[:8]
    stack_config = StackConfig(
        data=folder,
        gateway_port=0,
        index_port=0,
        embedder_port=0,
        reranker_port=0,
        model=where.model or None,
        reranker_model=where.reranker_model or None,
    )
    async with Stack(stack_config) as stack:
        address = stack.gateway_address
        async with AsyncClient(address, config=ClientConfig(timeout_seconds=CALL_SECONDS)) as client:
            yield ThroughGateway(client, f"{address}, started for this")


async def evaluate(
    source: Source,
    judged: JudgedSet,
    wanted: Wanted,
    progress: Progress,
    *,
    unfinished: Path | None = None,
    anew: bool = False,
) -> Evaluation:
    """Measures one set. Raises InvalidArgument for a corpus too large to be read whole by the cross-encoder.

    In the folder `unfinished` answers are kept as they come, and what an interrupted evaluation left there is not asked
    again, unless `anew`.
    """
    count = len(judged.documents)
    asking = wanted.asking
    if asking.exhaustive and count > MAX_EXHAUSTIVE:
        raise InvalidArgument(
            f"{judged.name} has {count:,} documents, and the cross-encoder would read all of them for each of "
            f"{len(judged.queries):,} queries; that is for {MAX_EXHAUSTIVE:,} at most: leave --exhaustive out, or take "
            f"part of the corpus with --prefix",
            field="exhaustive",
            reason="CORPUS_TOO_LARGE",
        )
    answered_by = await source.identify(judged, asking, progress)
    kept = UnfinishedAnswers(unfinished, judged, asking, answered_by) if unfinished else None
    if kept and anew:
        kept.forget()
    recommended = source.recommended
    # Before hours are spent, not after.
    check_baseline(_compared(wanted, recommended), wanted.baseline)
    answers = await _collect(source, judged, asking, progress, kept)
    if not recommended.activation:
        recommended = replace(recommended, activation=activation_told(answers))
    compared = _compared(wanted, recommended)
    measured = measure(answers, compared, k=wanted.k, deep=asking.first_depth)
    rows = estimated(
        measured, baseline=wanted.baseline, first_depth=min(asking.first_depth, count), document_count=count
    )
    report = Report(
        name=judged.name,
        split=judged.split,
        query_count=len(judged.queries),
        judged_count=judged.judged_count,
        document_count=count,
        k=wanted.k,
        first_depth=asking.first_depth,
        baseline=wanted.baseline,
        made=source.description,
        notes=judged.notes,
        rows=rows,
    )
    return Evaluation(report=report, judged=measured, answers=answers, unfinished=kept)


def _compared(wanted: Wanted, recommended: Recommended) -> list[System]:
    return systems(
        depths=wanted.depths,
        rerank_over=wanted.asking.rerank_over,
        recommended=recommended,
        mixings=wanted.mixings,
        fusions=wanted.fusions,
        exhaustive=wanted.asking.exhaustive,
    )


async def _collect(
    source: Source, judged: JudgedSet, asking: Asking, progress: Progress, kept: UnfinishedAnswers | None
) -> list[Answer]:
    """Every query's answer, in the set's order."""
    have: dict[str, Answer] = {}
    if kept:
        have = kept.read(judged.queries)
        notes = kept.others()
        if have:
            notes.append(
                f"{len(have):,} of {len(judged.queries):,} queries were answered before the interruption and are not "
                f"asked again: {kept.path}"
            )
        for note in notes:
            progress.console.print(note, soft_wrap=True)
    left = [query for query in judged.queries if query.id not in have]
    if left:
        try:
            with kept or nullcontext():
                async with aclosing(source.answers(replace(judged, queries=left), asking, progress)) as found:
                    async for answer in found:
                        have[answer.query.id] = answer
                        if kept:
                            kept.add(answer)
        finally:
            if kept and len(have) < len(judged.queries):
                progress.console.print(f"{len(have):,} answers are kept: the same command goes on from there")
    return [have[query.id] for query in judged.queries]


def wanted_of(
    *,
    depths: Sequence[int],
    first_depth: int,
    over: Sequence[str] = (DENSE, HYBRID),
    asking: Asking | None = None,
    **more: object,
) -> Wanted:
    """What is wanted, every first stage read as deep as the deepest reranking needs."""
    deepest = max(depths, default=0)
    asked = replace(
        asking or Asking(),
        # Mixing of scores knows of a candidate what the gateway knows, which reads both orders at least so deep.
        first_depth=max(first_depth, deepest, FUSED_DEPTH if deepest else 0),
        rerank_depth=deepest,
        rerank_over=tuple(over) if deepest else (),
    )
    return Wanted(asking=asked, depths=tuple(depths), **more)  # type: ignore[arg-type]
