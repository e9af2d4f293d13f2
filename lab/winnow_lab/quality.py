"""Ranking quality on a judged set, through the running services: retrieval, reranking, and their mixing.

    python -m winnow_lab.quality path/to/squad --split test --queries 150 --depth 20

One search a query is enough for every row of the table: its answer carries both stages' ranks, and the gateway's own
`splice` orders them for each mixing.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from winnow_client import AsyncClient, ClientConfig, Hit, IngestOutcome, RankingPolicy
from winnow_client.cli.processes_stack import Stack, StackConfig
from winnow_gateway.ordering import Mixing, splice
from winnow_lab.judged_sets import JudgedQuery, read_documents, read_queries
from winnow_relevance import ndcg, paired_difference, recall
from winnow_rpc.faults import AlreadyExists, Fault

MIXINGS: dict[str, Mixing | None] = {
    "reranked alone": None,
    "mixed, k = 2": Mixing(k=2),
    "mixed, k = 10": Mixing(k=10),
    "mixed, k = 60": Mixing(k=60),
    "mixed, k = 10, retrieval twice": Mixing(k=10, retrieval_weight=2),
    "mixed, k = 10, reranker twice": Mixing(k=10, rerank_weight=2),
}
"""The orders that are compared with retrieval's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One order's quality over the queries."""

    order: str
    ndcg_at_10: float
    gain: float
    """Mean difference to retrieval."""
    gain_standard_error: float


@dataclass(frozen=True, slots=True)
class Report:
    """Quality on one set."""

    name: str
    split: str
    query_count: int
    document_count: int
    depth: int
    recall_at_depth: float
    ceiling: float
    """nDCG@10 of the best order that the retrieved candidates allow."""
    rows: list[Row]


def _by_retrieval(hits: Sequence[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: hit.retrieval.rank if hit.retrieval else 0)


def order_by(hits: Sequence[Hit], mixing: Mixing | None) -> list[str]:
    """Document ids of an answer in which every hit was reranked, ordered anew."""
    retrieved = _by_retrieval(hits)
    scores = {position: hit.rerank.score for position, hit in enumerate(retrieved) if hit.rerank}
    placed = splice([hit.retrieval.score if hit.retrieval else 0.0 for hit in retrieved], scores, mixing=mixing)
    return [retrieved[each.position].document.id for each in placed]


def judge(answers: Sequence[tuple[JudgedQuery, Sequence[Hit]]], *, name: str, split: str, documents: int) -> Report:
    """The report over the answers of all queries."""
    retrieved = [[hit.document.id for hit in _by_retrieval(hits)] for _, hits in answers]
    depth = max((len(ids) for ids in retrieved), default=0)
    judgements = [query.judgements for query, _ in answers]

    def quality(orders: Sequence[Sequence[str]]) -> list[float]:
        return [ndcg(ids, judged, k=10) for ids, judged in zip(orders, judgements, strict=True)]

    base = quality(retrieved)
    best = [sorted(ids, key=lambda id_: -judged.get(id_, 0)) for ids, judged in zip(retrieved, judgements, strict=True)]
    rows = [Row("retrieval", float(np.mean(base)), 0.0, 0.0)]
    for order, mixing in MIXINGS.items():
        values = quality([order_by(hits, mixing) for _, hits in answers])
        difference = paired_difference(values, base)
        rows.append(Row(order, float(np.mean(values)), difference.mean, difference.standard_error))
    found = [recall(ids, judged, k=depth) for ids, judged in zip(retrieved, judgements, strict=True)]
    return Report(
        name=name,
        split=split,
        query_count=len(answers),
        document_count=documents,
        depth=depth,
        recall_at_depth=float(np.mean(found)),
        ceiling=float(np.mean(quality(best))),
        rows=rows,
    )


async def measure(target: str, folder: Path, *, split: str, queries: int, depth: int, prefix: str) -> Report:
    """Ingests a set into a collection of its name, unless it is there, searches, and judges."""
    judged = read_queries(folder, split)
    # The same sample on every run, so that figures of two versions can be compared query by query.
    sample = sorted(random.Random(0).sample(judged, min(queries, len(judged))), key=lambda query: query.id)
    documents = [document for document in read_documents(folder) if document.id.startswith(prefix)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    async with AsyncClient(target, config=ClientConfig(timeout_seconds=600)) as client:
        with progress:
            try:
                await client.create_collection(folder.name)
            except AlreadyExists:
                progress.console.print(f"collection {folder.name} is there already: only what changed is embedded")
            task = progress.add_task(f"ingest {folder.name}", total=len(documents))
            async for acknowledged in client.ingest(folder.name, documents):
                if acknowledged.outcome is IngestOutcome.REFUSED:
                    progress.console.print(f"{acknowledged.id} refused: {acknowledged.refusal}")
                progress.advance(task)
            task = progress.add_task(f"search {folder.name}", total=len(sample))
            answers = []
            for query in sample:
                result = await client.search(
                    folder.name,
                    query.text,
                    limit=depth,
                    depth=depth,
                    ranking_policy=RankingPolicy.RERANKER,
                    omit_text=True,
                )
                answers.append((query, result.hits))
                progress.advance(task)
    return judge(answers, name=folder.name, split=split, documents=len(documents))


def show(report: Report) -> Table:
    """The report for a person."""
    table = Table(
        title=f"{report.name} {report.split}: {report.query_count} queries, {report.document_count} documents, top "
        f"{report.depth} reranked; recall@{report.depth} {report.recall_at_depth:.3f}, best possible order of the "
        f"candidates {report.ceiling:.3f}"
    )
    for column in ("order", "nDCG@10", "against retrieval", "s.e."):
        table.add_column(column, justify="left" if column == "order" else "right")
    base = report.rows[0].ndcg_at_10
    for row in report.rows:
        gain = f"{row.gain / base:+.1%}" if base and row is not report.rows[0] else ""
        table.add_row(row.order, f"{row.ndcg_at_10:.3f}", gain, f"{row.gain_standard_error:.3f}" if gain else "")
    return table


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="test", show_default=True, help="Which judgements to use: qrels/SPLIT.tsv.")
@click.option("--queries", default=150, show_default=True, help="How many queries to draw, the same ones each time.")
@click.option("--depth", default=20, show_default=True, help="How many candidates to rerank.")
@click.option("--prefix", default="", help="Take only documents whose id begins with this.")
@click.option("--gateway", help="Use the gateway at HOST:PORT. Without it, the services are started here.")
@click.option("--data", default=".winnow/quality", show_default=True, help="Where services started here keep data.")
@click.option("--reranker-model", help="Cross-encoder for services started here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a set.")
def main(
    folders: tuple[Path, ...],
    split: str,
    queries: int,
    depth: int,
    prefix: str,
    gateway: str | None,
    data: str,
    reranker_model: str | None,
    as_json: bool,
) -> None:
    """Ranking quality on judged sets in the BEIR layout.

    Example: python -m winnow_lab.quality path/to/cranfield --queries 225 --depth 100
    """

    async def run() -> None:
        if gateway:
            await report_all(gateway)
            return
        config = StackConfig(
            data=Path(data),
            gateway_port=0,
            index_port=0,
            embedder_port=0,
            reranker_port=0,
            reranker_model=reranker_model,
        )
        async with Stack(config) as stack:
            await report_all(stack.gateway_address)

    async def report_all(target: str) -> None:
        for folder in folders:
            report = await measure(target, folder, split=split, queries=queries, depth=depth, prefix=prefix)
            if as_json:
                print(json.dumps(asdict(report)))
            else:
                Console().print(show(report))

    try:
        asyncio.run(run())
    except Fault as fault:
        print(fault.message, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
