"""`winnow advise`: the options, and how one thing follows another."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.durations import DurationType
from winnow_client.cli.output import console, emit, plain, say
from winnow_lab.evaluating.options import DepthsType, model_options, of_set, set_options, where_of

if TYPE_CHECKING:
    from winnow_lab.advising.measured import Option
    from winnow_lab.advising.reporting import Findings
    from winnow_lab.advising.timing import Asked, Timed
    from winnow_lab.evaluating.evaluation import Evaluation, Where
    from winnow_lab.evaluating.systems import System

CHOSEN_EXHAUSTIVE = 1_000
"""Documents of the largest set that is read whole by the cross-encoder without being asked to."""


@click.command(
    "advise",
    epilog="\b\nExamples:\n  winnow advise path/to/mine --budget 200ms\n"
    "  winnow advise path/to/mine --budget 500ms --corpus-size 2000000 --rate 5\n"
    "  winnow advise path/to/mine --budget 2s --exhaustive --queries 50",
)
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--budget", type=DurationType(), required=True, help="Time within which a search has to answer, as 200ms."
)
@click.option(
    "--corpus-size", type=click.IntRange(min=1), help="Documents that will be searched.  [default: the set's]"
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Searches a second."
)
@set_options(queries=300)
@click.option(
    "--timed", type=click.IntRange(min=1), default=40, show_default=True, help="Queries whose searches are timed."
)
@click.option(
    "--depths", type=DepthsType(), default="10,20,50,100,200", show_default=True, help="How many candidates to rerank."
)
@click.option(
    "--exhaustive/--no-exhaustive",
    default=None,
    help=f"Whether the cross-encoder reads every document too.  [default: up to {CHOSEN_EXHAUSTIVE:,} documents]",
)
@model_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/advise"),
    show_default=True,
    help="Where reports are kept, and answers until then; the same command goes on if it is interrupted.",
)
@click.option("--overwrite", is_flag=True, help="Ask every query, whatever an interrupted measurement left in --out.")
@connection_options()
@pass_connection
@click.pass_context
def advise(
    ctx: click.Context,
    connection: Connection,
    /,
    *,
    data: Path,
    out: Path,
    model: str,
    reranker_model: str,
    overwrite: bool,
    **chosen: Any,
) -> None:
    """Say how to search: which mode, how deep, how sure that is, and what it would need.

    Measures vectors, BM25, both, reranking at several depths and, of small sets, the cross-encoder over everything:
    what each is worth on the judgements of DATA, a folder in the BEIR layout, and how long it takes on this machine,
    which should do nothing else meanwhile. Recommends the smallest depth whose quality is within the noise of the best
    that keeps the budget, and writes a page to show a colleague.
    """
    from winnow_lab.evaluating.unfinished import UNFINISHED

    where = where_of(ctx, connection, model=model, reranker_model=reranker_model, out=out)
    findings, made = asyncio.run(_find(data, where, unfinished=out / UNFINISHED, anew=overwrite, **chosen))
    folder = _keep(out, findings)
    made.forget()
    if connection.machine:
        emit(_plain(findings))
    else:
        _show(findings)
    say(f"kept in {folder}: report.html, front.png, advice.json")


async def _find(
    data: Path,
    where: Where,
    *,
    unfinished: Path,
    anew: bool,
    budget: float,
    corpus_size: int | None,
    rate: float,
    timed: int,
    depths: tuple[int, ...],
    exhaustive: bool | None,
    **chosen: Any,
) -> tuple[Findings, Evaluation]:
    from winnow_lab.advising import costing, recommending, timing
    from winnow_lab.advising.measured import Situation
    from winnow_lab.advising.reporting import Findings
    from winnow_lab.bench_report import machine, progress
    from winnow_lab.evaluating import evaluation
    from winnow_lab.evaluating.answers import Asking
    from winnow_lab.evaluating.sets import count_judged, read_set
    from winnow_lab.evaluating.through_gateway import ThroughGateway, collection_name

    judged = read_set(data, **of_set(chosen))
    size = len(judged.documents)
    depths = tuple(depth for depth in depths if depth < size) or (size,) * bool(depths)
    whole = size <= CHOSEN_EXHAUSTIVE if exhaustive is None else exhaustive
    wanted = evaluation.wanted_of(depths=depths, first_depth=100, asking=Asking(exhaustive=whole))
    async with evaluation.opened(where) as source:
        assert isinstance(source, ThroughGateway)
        with progress(window_seconds=300.0) as bars:
            made = await evaluation.evaluate(source, judged, wanted, bars, unfinished=unfinished, anew=anew)
            collection = collection_name(judged, wanted.asking)
            kinds = list(dict.fromkeys(_asked(system) for system in made.judged.systems))
            took = await timing.time_searches(source.client, collection, judged.queries[:timed], kinds, bars)
        dimension = (await source.client.get_collection(collection)).dimension
        description = source.description
    options = _options(made, took, size)
    situation = Situation(
        measure=made.report.headline,
        budget=budget,
        measured_size=size,
        corpus_size=corpus_size or size,
        training_queries=count_judged(data, "train") if judged.split != "train" else 0,
    )
    advice = recommending.advise(options, situation)
    plan = costing.cost(
        took.work, advice.chosen, documents=situation.corpus_size, rate=rate, budget=budget, dimension=dimension
    )
    facts = machine()
    of = f" of {judged.judged_count:,}" if judged.judged_count > len(judged.queries) else ""
    findings = Findings(
        name=judged.name,
        advice=advice,
        options=options,
        situation=situation,
        plan=plan,
        made={
            "judgements": f"{len(judged.queries):,}{of} queries of the split {judged.split}, {size:,} documents",
            "timed": f"{min(timed, len(judged.queries))} queries, each in every way",
            **description,
            "machine": f"{facts['cores']} cores of {facts['processor']}, load before {facts['load_before']}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        notes=judged.notes,
    )
    return findings, made


def _asked(system: System) -> Asked:
    from winnow_lab.advising.timing import Asked

    return Asked(system.stage, system.depth)


def _options(made: Evaluation, took: Timed, size: int) -> list[Option]:
    from winnow_lab.advising.measured import Kind, Option
    from winnow_lab.evaluating.answers import BM25

    options = []
    for system, row in zip(made.judged.systems, made.report.rows, strict=True):
        kind = Kind.TWO_STAGE if system.depth else Kind.LEXICAL if system.stage == BM25 else Kind.RETRIEVE
        if not system.stage:
            kind = Kind.EXHAUSTIVE
        options.append(
            Option(
                name=system.name,
                kind=kind,
                stage=system.stage,
                depth=size if kind is Kind.EXHAUSTIVE else system.depth,
                mixed=system.mixing is not None,
                values=made.judged.of(system.name, made.report.headline),
                quality=row.measures[made.report.headline],
                latency=took.latencies[_asked(system)],
                ceiling=row.ceiling,
                found=row.candidate_recall,
            )
        )
    return options


def _plain(findings: Findings) -> dict[str, Any]:
    """The findings as JSON holds them."""
    from winnow_lab.advising.measured import pareto
    from winnow_lab.advising.reporting import settings_of

    advice = findings.advice
    front = {option.name for option in pareto(findings.options)}
    return {
        "recommended": {"option": advice.chosen.name, "settings": settings_of(advice.chosen), "reason": advice.reason},
        "keeps_budget": advice.keeps_budget,
        "warnings": list(advice.warnings),
        "rules": list(advice.rules),
        "sureness": asdict(advice.sureness),
        "situation": asdict(findings.situation),
        "options": [
            {
                "name": option.name,
                "kind": option.kind.value,
                "stage": option.stage,
                "depth": option.depth,
                "quality": asdict(option.quality),
                "p50_seconds": option.latency.p50,
                "p95_seconds": option.latency.p95,
                "ceiling": option.ceiling,
                "found": option.found,
                "on_front": option.name in front,
            }
            for option in findings.options
        ],
        "plan": plain(findings.plan),
        "made": dict(findings.made),
    }


def _keep(out: Path, findings: Findings) -> Path:
    from winnow_lab.advising.drawing import picture
    from winnow_lab.advising.reporting import page
    from winnow_lab.evaluating.keeping import new_folder
    from winnow_lab.writing import written

    folder = new_folder(out, findings.name)
    situation = findings.situation
    drawn = picture(
        findings.options,
        chosen=findings.advice.chosen,
        budget=situation.budget,
        measure=situation.measure,
        title=findings.title,
    )
    told = json.dumps(plain(_plain(findings)), indent=2, allow_nan=False)
    with written(folder):
        (folder / "front.png").write_bytes(drawn)
        (folder / "report.html").write_text(page(findings, drawn), encoding="utf-8")
        (folder / "advice.json").write_text(told + "\n", encoding="utf-8")
    return folder


def _show(findings: Findings) -> None:
    from winnow_lab.advising import reporting
    from winnow_lab.advising.drawing import scatter

    screen, advice, situation = console(), findings.advice, findings.situation
    screen.print(f"{situation.measure} against median latency; dots: the budget of {situation.budget * 1000:,.0f} ms")
    for line in scatter(findings.options, budget=situation.budget):
        screen.print(line)
    screen.print(reporting.show(findings))
    screen.print(f"recommended: {advice.chosen.name}")
    screen.print(f"  {reporting.command_of(advice.chosen)}")
    screen.print(f"why: {advice.reason}")
    for head, sentences in (
        ("mind", advice.warnings),
        ("how sure", reporting.sure(advice.sureness, situation.measure)),
        ("rule", advice.rules),
        ("needs", reporting.costs(findings.plan)),
        ("note", findings.notes),
    ):
        for sentence in sentences:
            screen.print(f"{head}: {sentence}")
