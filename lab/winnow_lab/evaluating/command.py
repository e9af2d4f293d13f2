"""`winnow evaluate`: the options, and what runs for each set."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.output import console, emit, say
from winnow_gateway.collections import LexicalConfig
from winnow_lab.evaluating.options import DepthsType, gateway_is_given, model_options, of_set, set_options, where_of

if TYPE_CHECKING:
    from winnow_lab.evaluating.evaluation import Evaluation, Wanted, Where


_BM25 = LexicalConfig()


class WeightsType(click.ParamType[tuple[float, float, float]]):
    """A constant k and two weights, as "3,3,1"."""

    def __init__(self, first: str, second: str, *, whole: bool = False) -> None:
        """`whole`: k is a whole number, as it is of a fusion."""
        self.name = f"K,{first},{second}"
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float]:
        """k, at least 1, and the weights, above 0; all finite."""
        if isinstance(value, tuple):
            return value
        try:
            k, first, second = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not k and two weights, as in 3,3,1.", param, ctx)
        if not (1 <= k < math.inf and 0 < first < math.inf and 0 < second < math.inf):
            self.fail(f"{value!r}: k is at least 1, and the weights are above 0.", param, ctx)
        if self._whole and not k.is_integer():
            self.fail(f"{value!r}: k is a whole number.", param, ctx)
        return k, first, second


@click.command(
    "evaluate",
    epilog="\b\nExamples:\n  winnow evaluate path/to/squad --queries 500 --depths 20,100\n"
    "  winnow evaluate path/to/cranfield --in-process --exhaustive --baseline dense\n"
    "  winnow evaluate path/to/mine --gateway search.internal:50050 --collection docs --json\n"
    "  winnow evaluate path/to/stsb --split test",
)
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@set_options(queries=1000)
@click.option(
    "--depths",
    type=DepthsType(),
    default="20,50,100",
    show_default=True,
    help="How many candidates are reranked; 0: none. Each candidate is scored once, for all depths.",
)
@click.option(
    "--over",
    type=click.Choice(["dense", "hybrid", "both"]),
    default="both",
    show_default=True,
    help="Whose candidates are reranked.",
)
@click.option("--exhaustive", is_flag=True, help="Also let the cross-encoder read every document: small corpora.")
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Cut of nDCG, MRR and recall.")
@click.option(
    "--first-depth",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Documents that each first stage is asked for; as deep as MAP looks.",
)
@click.option("--baseline", default="hybrid", show_default=True, help="The system that all others are compared with.")
@click.option(
    "--fusion",
    "fusions",
    multiple=True,
    type=WeightsType("DENSE", "BM25", whole=True),
    help="A fusion to judge besides; repeats.",
)
@click.option(
    "--mixing",
    "mixings",
    multiple=True,
    type=WeightsType("FIRST", "RERANK"),
    help="A mixing to judge besides; repeats.",
)
@click.option("--language", default=_BM25.language, show_default=True, help="Of the words, for BM25; none for any.")
@click.option(
    "--average-words",
    type=click.IntRange(min=1),
    default=_BM25.average_words,
    show_default=True,
    help="For BM25, likewise.",
)
@click.option("--in-process", is_flag=True, help="Without services: models, vectors and BM25 in this process.")
@click.option("--collection", default="", help="With --gateway: search this collection as it is, and ingest nothing.")
@model_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/evaluate"),
    show_default=True,
    help="Where reports, per-query values and runs are kept; the same command goes on from there if it is interrupted.",
)
@click.option("--overwrite", is_flag=True, help="Ask every query, whatever an interrupted evaluation left in --out.")
@connection_options()
@pass_connection
@click.pass_context
def evaluate(
    ctx: click.Context,
    connection: Connection,
    /,
    *,
    data: tuple[Path, ...],
    in_process: bool,
    collection: str,
    model: str,
    reranker_model: str,
    out: Path,
    overwrite: bool,
    **chosen: Any,
) -> None:
    """Say what retrieval and reranking are worth on judged sets.

    DATA are folders in the BEIR layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv, gzipped or not), or files or
    folders of scored pairs (sentence1, sentence2, score: JSONL, CSV, Parquet). Services are started for the
    measurement, unless --gateway names some that run or --in-process does without.

    Every figure has a 95% interval over the queries, and every reranked one stands beside the best that its candidates
    allow. docs/evaluation.md says how to read them.
    """
    from winnow_lab.data.beir import is_judged_set

    given = gateway_is_given(ctx)
    where = where_of(ctx, connection, model=model, reranker_model=reranker_model, out=out)
    if in_process and given:
        raise click.UsageError("--in-process asks no gateway: give it or --gateway, not both.", ctx)
    if collection and not given:
        raise click.UsageError("--collection is one of a running gateway's: name that with --gateway.", ctx)
    folders = [path for path in data if is_judged_set(path)]
    pairs = [path for path in data if not is_judged_set(path)]
    if pairs and given:
        raise click.UsageError(f"{pairs[0]} has no corpus, and pairs are scored in process: leave --gateway out.", ctx)
    where = replace(where, in_process=in_process, collection=collection)
    if folders:
        _rankings(folders, where, out, machine=connection.machine, anew=overwrite, **chosen)
    if pairs:
        _similarities(pairs, where, out, split=chosen["split"], machine=connection.machine)


def _rankings(folders: Sequence[Path], where: Where, out: Path, *, machine: bool, anew: bool, **chosen: Any) -> None:
    from winnow_lab.bench_report import progress
    from winnow_lab.evaluating import evaluation, tables
    from winnow_lab.evaluating.sets import read_set
    from winnow_lab.evaluating.unfinished import UNFINISHED

    wanted = _wanted(chosen)
    # All are read before anything is measured: what is wrong with the last is said at once.
    judged = [read_set(folder, **of_set(chosen)) for folder in folders]

    async def run() -> list[Evaluation]:
        finished = []
        async with evaluation.opened(where) as source:
            for one in judged:
                with progress(window_seconds=300.0) as bars:
                    made = await evaluation.evaluate(source, one, wanted, bars, unfinished=out / UNFINISHED, anew=anew)
                finished.append(made)
                if machine:
                    emit(made.report)
                else:
                    console().print(tables.show(made.report))
                    for note in made.report.notes:
                        console().print(f"note: {note}")
                say(f"kept in {made.keep(out)}")
        return finished

    finished = asyncio.run(run())
    for each in finished:
        # Not before the last set is done: the same command would measure the first ones again.
        each.forget()
    if len(finished) > 1 and not machine:
        console().print(tables.show_average([each.report for each in finished]))


def _similarities(paths: Sequence[Path], where: Where, out: Path, *, split: str, machine: bool) -> None:
    from winnow_lab.bench_report import progress
    from winnow_lab.evaluating import similarity
    from winnow_lab.evaluating.in_process import InProcess

    sets = {similarity.name_of(path, split): similarity.read_pairs(path, split) for path in paths}

    async def run() -> None:
        async with InProcess(model=where.model, reranker_model=where.reranker_model) as models:
            for name, pairs in sets.items():
                with progress() as bars:
                    report, records = await similarity.correlate(models, name, pairs, bars)
                if machine:
                    emit(report)
                else:
                    console().print(similarity.show(report))
                say(f"kept in {similarity.keep(out, report, records)}")

    asyncio.run(run())


def _wanted(chosen: dict[str, Any]) -> Wanted:
    from winnow_gateway.ordering import Fusion, Mixing
    from winnow_lab.evaluating.answers import DENSE, HYBRID, Asking
    from winnow_lab.evaluating.evaluation import wanted_of

    return wanted_of(
        depths=chosen["depths"],
        first_depth=max(chosen["first_depth"], chosen["k"]),
        over=(DENSE, HYBRID) if chosen["over"] == "both" else (chosen["over"],),
        asking=Asking(
            exhaustive=chosen["exhaustive"], language=chosen["language"], average_words=chosen["average_words"]
        ),
        mixings=[Mixing(*weights) for weights in chosen["mixings"]],
        fusions=[Fusion(int(k), dense, lexical) for k, dense, lexical in chosen["fusions"]],
        k=chosen["k"],
        baseline=chosen["baseline"],
    )
