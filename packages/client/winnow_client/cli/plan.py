"""`winnow plan`: what a deployment needs, from what it has to serve and what work was measured to cost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace
from pathlib import Path

import click

from winnow_client import addresses
from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.durations import DurationType
from winnow_client.cli.output import console, emit, say, table
from winnow_client.cli.sizing import Costs, Plan, Workload, plan
from winnow_client.cli.sizing_costs import BUILT_IN, costs_of

_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_FROM_ZERO = click.FloatRange(min=0)
_DEFAULTS = {field.name: field.default for field in fields(Workload)}


@click.command(
    "plan",
    epilog="\b\nExamples:\n  winnow plan --documents 1000000 --qps 5 --budget 400ms\n"
    "  winnow bench path --json > path.json; winnow plan --documents 1000000 --measured path.json\n"
    "  winnow plan --documents 1000000 --probe --json",
)
@click.option("--documents", type=click.IntRange(min=1), required=True, help="Documents to index.")
@click.option("--tokens", type=_ABOVE_ZERO, default=_DEFAULTS["tokens"], show_default=True, help="Tokens of one, mean.")
@click.option("--dimension", type=click.IntRange(min=1), help="Components of a vector.  [default: the model's, or 384]")
@click.option("--qps", type=_FROM_ZERO, default=1.0, show_default=True, help="Searches a second at the busiest time.")
@click.option("--query-tokens", type=_ABOVE_ZERO, default=12.0, show_default=True, help="Tokens of a query, mean.")
@click.option(
    "--depth", type=click.IntRange(0, 1000), default=100, show_default=True, help="Candidates reranked; 0: none."
)
@click.option("--budget", type=DurationType(), help="Time within which a search has to answer, as 400ms.")
@click.option("--daily", type=_FROM_ZERO, default=0.0, show_default=True, help="Documents new or changed each day.")
@click.option("--without-lexical", is_flag=True, help="Vectors alone, no BM25.")
@click.option(
    "--copies",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Copies of the index, in a Qdrant cluster.",
)
@click.option(
    "--utilisation",
    type=click.FloatRange(min=0, max=0.95, min_open=True),
    default=0.6,
    show_default=True,
    help="Of each replica that may be busy. Waiting grows with u / (1 - u): at 0.6 a search waits 0.75 of its own time "
    "on average, at 0.9 4.5 times.",
)
@click.option(
    "--spare",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Replicas that may be away, of each service.",
)
@click.option(
    "--measured",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Costs from a report of `winnow bench path --json` or `winnow bench inference --json`; may be repeated.",
)
@click.option("--probe", is_flag=True, help="Costs of a running embedder and reranker, which are kept busy for 6 s.")
@click.option(
    "--embedder", metavar="HOST:PORT", envvar="WINNOW_EMBEDDER", default=addresses.EMBEDDER, show_default=True
)
@click.option(
    "--reranker", metavar="HOST:PORT", envvar="WINNOW_RERANKER", default=addresses.RERANKER, show_default=True
)
@connection_options()
@pass_connection
def plan_command(
    connection: Connection,
    *,
    documents: int,
    tokens: float,
    dimension: int | None,
    qps: float,
    query_tokens: float,
    depth: int,
    budget: float | None,
    daily: float,
    without_lexical: bool,
    copies: int,
    utilisation: float,
    spare: int,
    measured: tuple[Path, ...],
    probe: bool,
    embedder: str,
    reranker: str,
) -> None:
    """Say what a deployment needs: memory and disk of the index, replicas of the services, time of the first ingest.

    Costs are those of one replica, on the machine that they were measured on; without --measured or --probe they are
    those of the documentation's. docs/operations.md has the formulas and how far they were checked.
    """
    workload = Workload(
        documents=documents,
        tokens=tokens,
        queries_per_second=qps,
        query_tokens=query_tokens,
        depth=depth,
        budget=budget,
        daily_documents=daily,
        lexical=not without_lexical,
        copies=copies,
    )
    costs = _read(measured)
    if probe:
        from winnow_client.cli import sizing_probe

        say("asking the embedder and the reranker, some 6 seconds")
        asked = asyncio.run(sizing_probe.probe(costs, embedder=embedder, reranker=reranker, timeout=connection.timeout))
        costs = asked.costs
        workload = replace(workload, dimension=asked.dimension, model_tokens=asked.model_tokens)
    if dimension is not None:
        workload = replace(workload, dimension=dimension)
    made = plan(workload, costs, utilisation=utilisation, spare=spare)
    if connection.machine:
        emit(made)
    else:
        _show(made)


def _read(files: tuple[Path, ...]) -> Costs:
    costs = BUILT_IN
    for path in files:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise click.BadParameter(f"{path} is no JSON: {error}", param_hint="--measured") from error
        costs = costs_of(report, costs, name=path.name)
    return costs


def _show(made: Plan) -> None:
    screen, index, workload = console(), made.index, made.workload
    lexical = "with BM25" if workload.lexical else "without BM25"
    screen.print(
        f"{workload.documents:,} documents of {workload.tokens:g} tokens, {workload.dimension} components, {lexical}; "
        f"{workload.queries_per_second:g} searches/s, {made.depth} candidates reranked"
    )
    screen.print(f"costs: {made.costs.source}")
    sizes = table(
        "index" + (f", each of {workload.copies} copies" if workload.copies > 1 else ""), "size", right=("size",)
    )
    sizes.add_row("memory, serving", _size(index.memory))
    sizes.add_row("memory, while a graph is built, at least", _size(index.memory_while_building))
    sizes.add_row("the same with every file cached", _size(index.memory_while_building_cached))
    sizes.add_row("disk", _size(index.disk))
    sizes.add_row("disk, while a graph is built", _size(index.disk_while_building))
    sizes.add_row("each snapshot", _size(index.snapshot))
    screen.print(sizes)
    columns = ("needed", "replicas", "busy", "a search takes", "waits, mean")
    rows = table("service", *columns, right=columns)
    for stage in made.stages:
        rows.add_row(
            stage.service,
            str(stage.needed),
            str(stage.replicas),
            f"{stage.utilisation:.0%}",
            f"{stage.seconds_per_search * 1000:.1f} ms",
            f"{stage.mean_wait * 1000:.1f} ms",
        )
    screen.print(rows)
    screen.print(f"first ingest: {_duration(made.first_ingest_seconds)} by {made.stages[1].replicas} embedder(s)")
    for warning in made.warnings:
        screen.print(f"note: {warning}")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
