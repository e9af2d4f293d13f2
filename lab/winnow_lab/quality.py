"""Ranking quality on a judged set, through the running services: first stages side by side, reranking over hybrid.

    python -m winnow_lab.quality path/to/squad --split test --queries 1000 --depth 0
    python -m winnow_lab.quality path/to/squad --split dev --depth 0 --fusion 2,1,1 --fusion 3,3,1

Each first stage is one search a query. Fusions that are given are made here, of what vectors and BM25 found, by the
formula of the index; one more search a query reranks, and the gateway's own `splice` orders its hits for each mixing.
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from winnow_client import (
    AsyncClient,
    ClientConfig,
    Document,
    IngestOutcome,
    LexicalConfig,
    RankingPolicy,
    RetrievalKind,
    SearchMode,
)
from winnow_client.cli.output import console, table
from winnow_client.cli.processes_stack import Stack, StackConfig
from winnow_gateway.ordering import Fusion
from winnow_lab.data.beir import JudgedQuery, read_documents, read_queries
from winnow_lab.judging import BM25, DENSE, HYBRID, Answer, Report, judge
from winnow_rpc.faults import AlreadyExists, Fault

_FIRST_STAGES = {
    DENSE: (SearchMode.RETRIEVE, RetrievalKind.DENSE),
    BM25: (SearchMode.LEXICAL, None),
    HYBRID: (SearchMode.RETRIEVE, RetrievalKind.HYBRID),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What of a set is measured, and how deep."""

    split: str
    queries: int
    first_depth: int
    rerank_depth: int
    prefix: str
    average_words: int | None
    fusions: Sequence[Fusion]


async def measure(target: str, folder: Path, sampling: Sampling) -> Report:
    """Ingests a set into a collection of its name, unless it is there, searches, and judges."""
    judged = read_queries(folder, sampling.split)
    # The same sample on every run, so that figures of two versions can be compared query by query.
    chosen = random.Random(0).sample(judged, min(sampling.queries, len(judged)))
    sample = sorted(chosen, key=lambda query: query.id)
    documents = [document for document in read_documents(folder) if document.id.startswith(sampling.prefix)]
    words = sampling.average_words
    collection = folder.name if words is None else f"{folder.name}-{words}-words"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console(stderr=True))
    async with AsyncClient(target, config=ClientConfig(timeout_seconds=600)) as client:
        with progress:
            try:
                lexical = None if words is None else LexicalConfig(average_words=words)
                await client.create_collection(collection, lexical=lexical)
            except AlreadyExists:
                progress.console.print(f"collection {collection} is there already: only what changed is embedded")
            await _ingest(client, collection, documents, progress)
            task = progress.add_task(f"search {collection}", total=len(sample))
            answers = []
            for query in sample:
                answers.append(await _search(client, collection, query, sampling))
                progress.advance(task)
    return judge(
        answers,
        name=folder.name,
        split=sampling.split,
        documents=len(documents),
        first_depth=sampling.first_depth,
        fusions=sampling.fusions,
    )


async def _ingest(client: AsyncClient, collection: str, documents: Sequence[Document], progress: Progress) -> None:
    task = progress.add_task(f"ingest {collection}", total=len(documents))
    async for acknowledged in client.ingest(collection, documents):
        if acknowledged.outcome is IngestOutcome.REFUSED:
            progress.console.print(f"{acknowledged.id} refused: {acknowledged.refusal}")
        progress.advance(task)


async def _search(client: AsyncClient, collection: str, query: JudgedQuery, sampling: Sampling) -> Answer:
    stages = {}
    for stage, (mode, kind) in _FIRST_STAGES.items():
        result = await client.search(
            collection, query.text, limit=sampling.first_depth, mode=mode, retrieval=kind, omit_text=True
        )
        stages[stage] = [hit.document.id for hit in result.hits]
    depth = sampling.rerank_depth
    if not depth:
        return Answer(query, stages)
    result = await client.search(
        collection,
        query.text,
        limit=depth,
        depth=depth,
        mode=SearchMode.TWO_STAGE,
        retrieval=RetrievalKind.HYBRID,
        ranking_policy=RankingPolicy.RERANKER,
        omit_text=True,
    )
    return Answer(query, stages, result.hits)


def show(report: Report) -> Table:
    """The report for a person."""
    title = f"{report.name} {report.split}: {report.query_count} queries, {report.document_count} documents"
    if report.rerank_depth:
        title += f", top {report.rerank_depth} reranked; best possible order of those {report.ceiling:.3f}"
    numbers = ("nDCG@10", "gain", "s.e.", f"recall@{report.first_depth}")
    figures = table("order", numbers[0], "against", *numbers[1:], right=numbers)
    figures.title = title
    values = {row.order: row.ndcg_at_10 for row in report.rows}
    for row in report.rows:
        base = values.get(row.against)
        gain = f"{row.gain / base:+.1%}" if base else ""
        figures.add_row(
            row.order,
            f"{row.ndcg_at_10:.3f}",
            row.against,
            gain,
            f"{row.gain_standard_error:.3f}" if gain else "",
            "" if row.recall is None else f"{row.recall:.3f}",
        )
    return figures


class _FusionType(click.ParamType[Fusion]):
    name = "K,DENSE,BM25"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Fusion:
        """K and two weights."""
        try:
            k, dense, lexical = str(value).split(",")
            fusion = Fusion(int(k), float(dense), float(lexical))
        except ValueError:
            self.fail(f"{value!r} is not k and two weights, as in 2,1,1", param, ctx)
        if fusion.k < 1 or not (fusion.dense_weight > 0 and fusion.lexical_weight > 0):
            self.fail("k is at least 1, and the weights are above 0", param, ctx)
        return fusion


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", default="test", show_default=True, help="Which judgements to use: qrels/SPLIT.tsv.")
@click.option("--queries", default=150, show_default=True, help="How many queries to draw, the same ones each time.")
@click.option("--depth", "rerank_depth", default=20, show_default=True, help="Candidates to rerank; 0: measure none.")
@click.option("--first-depth", default=100, show_default=True, help="Documents to ask each first stage for.")
@click.option("--fusion", "fusions", multiple=True, type=_FusionType(), help="A fusion to judge besides. Repeatable.")
@click.option("--prefix", default="", help="Take only documents whose id begins with this.")
@click.option("--average-words", type=int, help="BM25's words of a usual document; in a collection of its own.")
@click.option("--gateway", help="Use the gateway at HOST:PORT. Without it, the services are started here.")
@click.option("--data", default=".winnow/quality", show_default=True, help="Where services started here keep data.")
@click.option("--reranker-model", help="Cross-encoder for services started here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a set.")
def main(
    folders: tuple[Path, ...],
    gateway: str | None,
    data: str,
    reranker_model: str | None,
    as_json: bool,
    **sampled: object,
) -> None:
    """Ranking quality on judged sets in the BEIR layout.

    Example: python -m winnow_lab.quality path/to/cranfield --queries 225 --depth 100
    """
    sampling = Sampling(**sampled)  # type: ignore[arg-type]

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
            report = await measure(target, folder, sampling)
            if as_json:
                print(json.dumps(asdict(report)), flush=True)
            else:
                console().print(show(report))

    try:
        asyncio.run(run())
    except Fault as fault:
        print(fault.message, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
