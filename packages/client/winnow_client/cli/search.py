"""`winnow search`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.durations import DurationType
from winnow_client.cli.output import console, emit, millis, printable, snippet, table
from winnow_client.cli.where import WHERE_HELP, WhereType, parse_where
from winnow_client.searching import (
    DepthPolicy,
    Effort,
    RankingPolicy,
    RetrievalKind,
    SearchMode,
    SearchOptions,
    SearchResult,
    SearchState,
    StageResult,
)

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_COUNT = click.IntRange(1, 1000)
_MODES = [mode.value for mode in SearchMode if mode is not SearchMode.UNKNOWN]


@click.command(
    epilog="\b\nExamples:\n  winnow search docs 'how do I open a file?'\n"
    "  winnow search docs 'graph search' --where 'year>=2016' --limit 3 --json\n"
    "  winnow search docs 'ENOENT' --mode lexical\n"
    "  winnow search docs 'how do I open a file?' --budget 200ms --stream"
)
@click.argument("collection")
@click.argument("query")
@click.option("--limit", type=_COUNT, default=10, show_default=True, help="Hits to show.")
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    default=SearchMode.AUTO.value,
    show_default=True,
    help="Which stages answer; auto chooses by the collection's size, the time there is and what works.",
)
@click.option(
    "--retrieval",
    type=click.Choice([RetrievalKind.DENSE.value, RetrievalKind.HYBRID.value]),
    help="Find candidates by vectors alone, or by vectors and BM25.  [default: hybrid where the collection has BM25]",
)
@click.option("--depth", type=_COUNT, help="Candidates to rerank.  [default: the gateway's, 100]")
@click.option(
    "--depth-policy",
    type=click.Choice([policy.value for policy in DepthPolicy if policy is not DepthPolicy.UNKNOWN]),
    help="Rerank as deep as the time allows, or fail where it is less than the whole depth.  [default: wish]",
)
@click.option(
    "--budget",
    type=DurationType(),
    help="Time within which the answer is wanted, as 200ms or 1.5s: reranking stops for it.  [default: --timeout]",
)
@click.option(
    "--effort",
    type=click.Choice([effort.value for effort in Effort if effort is not Effort.UNKNOWN]),
    help="Rerank all of the depth, or stop when the first hits have settled.  [default: full]",
)
@click.option("--require-rerank", is_flag=True, help="Fail rather than answer without the reranker.")
@click.option("--stream", is_flag=True, help="Show the order as it forms; with --json, one state a line.")
@click.option("--where", multiple=True, type=WhereType(), help=WHERE_HELP)
@click.option("--ef", type=click.IntRange(1, 4096), help="Candidates that HNSW considers: more is better and slower.")
@click.option("--exact", is_flag=True, help="Compare with every vector instead of walking the graph.")
@click.option(
    "--ranking",
    type=click.Choice([policy.value for policy in RankingPolicy if policy is not RankingPolicy.UNKNOWN]),
    help="Order reranked hits by the reranker alone, or mixed.  [default: as its model recommends]",
)
@click.option(
    "--min-score",
    "--min-retrieval-score",
    type=float,
    help="Least similarity, for what vectors find; what BM25 finds is not judged by it.",
)
@click.option("--min-rerank-score", type=float, help="Least score of reranking, for hits that were reranked.")
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    help="Least probability of being relevant, for hits that were reranked; needs a calibrated reranker.",
)
@connection_options()
@pass_connection
def search(
    connection: Connection,
    *,
    collection: str,
    query: str,
    limit: int,
    mode: str,
    retrieval: str | None,
    depth: int | None,
    depth_policy: str | None,
    budget: float | None,
    effort: str | None,
    require_rerank: bool,
    stream: bool,
    where: tuple[str, ...],
    ef: int | None,
    exact: bool,
    ranking: str | None,
    min_score: float | None,
    min_rerank_score: float | None,
    min_probability: float | None,
) -> None:
    """Search COLLECTION for QUERY; a QUERY of - is read from standard input.

    Shows, for each hit, its rank by vectors and by BM25, its rank and score after retrieval and after reranking, how
    likely it is relevant where the reranker's model is calibrated, and where the time went.
    """
    if query == "-":
        try:
            query = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            context = click.get_current_context()
            raise click.UsageError("the query on standard input is not UTF-8.", context) from error
    options = SearchOptions(
        limit=limit,
        mode=SearchMode(mode),
        depth=depth,
        depth_policy=DepthPolicy(depth_policy) if depth_policy else None,
        budget=budget,
        effort=Effort(effort) if effort else None,
        require_rerank=require_rerank,
        where=parse_where(where),
        retrieval=RetrievalKind(retrieval) if retrieval else None,
        ef=ef,
        exact=exact,
        ranking_policy=RankingPolicy(ranking) if ranking else None,
        min_retrieval_score=min_score,
        min_rerank_score=min_rerank_score,
        min_probability=min_probability,
    )
    with connection.client() as client:
        if stream:
            watch(client.stream_search(collection, query, **options), query=query, machine=connection.machine)
            return
        result = client.search(collection, query, **options)
    if connection.machine:
        emit(result)
    else:
        show(result, query=query)


def watch(states: Iterable[SearchState], *, query: str, machine: bool) -> None:
    """Writes a search as it forms: for machines every state on a line, for people the newest in the place of the
    last."""
    if machine:
        for state in states:
            emit(state)
        return
    from rich.live import Live

    out = console()
    # Where there is no terminal to write over, only the last state is written.
    with Live(console=out, auto_refresh=False, transient=False, vertical_overflow="visible") as live:
        for state in states:
            live.update(_rendered(state.result, query=query, forming=not state.final), refresh=out.is_terminal)


def show(result: SearchResult, *, query: str) -> None:
    """Writes a search result for people."""
    console().print(_rendered(result, query=query))


def _rendered(result: SearchResult, *, query: str, forming: bool = False) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if not result.hits:
        parts.append(Text("Nothing was found."))
    else:
        numbers = ["retrieved", "reranked"]
        fused = result.retrieval_kind is RetrievalKind.HYBRID
        if fused:
            numbers = ["vectors", "BM25", *numbers]
        if calibrated := any(hit.probability is not None for hit in result.hits):
            numbers.append("relevant")
        hits = table("#", "document", *numbers, right=("#", *numbers))
        for hit in result.hits:
            document = Text(printable(hit.document.title or hit.document.id).replace("\n", " "), style="bold")
            if hit.document.title:
                document.append(f"  {printable(hit.document.id)}", style="not bold dim")
            if excerpt := snippet(hit.document.text, query):
                document.append(f"\n{excerpt}", style="not bold")
            cells = [_place(hit.retrieval), _place(hit.rerank)]
            if fused:
                cells = [_rank(hit.dense), _rank(hit.lexical), *cells]
            if calibrated:
                cells.append("" if hit.probability is None else f"{hit.probability:.0%}")
            hits.add_row(str(hit.rank), document, *cells)
        parts.append(hits)
    parts.append(Text(f"… {timing_line(result)}" if forming else timing_line(result), style="dim" if forming else ""))
    for degradation in result.degradations:
        sentence = f"Less than asked for: {printable(degradation.message)} ({degradation.reason})"
        parts.append(Text(sentence, style="yellow"))
    return Group(*parts)


def timing_line(result: SearchResult) -> str:
    """Where the time of a search went, in one line."""
    timing = result.timing
    stages = [("embed", timing.embed_micros), ("retrieve", timing.retrieve_micros), ("rerank", timing.rerank_micros)]
    spent = ", ".join(f"{name} {millis(micros)}" for name, micros in [*stages, ("gateway", timing.gateway_micros)])
    how = dict.fromkeys((result.mode.value, result.retrieval_kind.value))
    return (
        f"{', '.join(how)}: {result.candidate_count} candidates, {result.reranked_count} reranked, "
        f"{millis(timing.total_micros)} ({spent})"
    )


def _place(stage: StageResult | None) -> str:
    return "" if stage is None else f"{stage.rank:>3}  {stage.score:8.4f}"


def _rank(stage: StageResult | None) -> str:
    return "–" if stage is None else str(stage.rank)
