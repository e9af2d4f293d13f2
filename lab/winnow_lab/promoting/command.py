"""`winnow promote`: the options, and how one thing follows another."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from winnow_client.cli.connection import Connection, pass_connection
from winnow_client.cli.output import console, emit, say
from winnow_lab.evaluating.options import of_set, set_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from winnow_lab.promoting.comparing import Compared, Kind
    from winnow_lab.promoting.deciding import Comparison


@click.command(
    "promote",
    epilog="\b\nExamples:\n  winnow promote runs/reranker --data path/to/squad --data path/to/mine\n"
    "  winnow promote runs/bi-encoder --serving models/now --data path/to/mine --into models/serving",
)
@click.argument("candidate", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A judged set in the BEIR layout to compare on; repeats.",
)
@click.option("--serving", default="", help="The model that serves now, by path or hub id.  [default: the shipped one]")
@click.option(
    "--kind",
    type=click.Choice(["bi-encoder", "cross-encoder"]),
    help="What the candidate is.  [default: what its configuration says]",
)
@set_options(queries=500)
@click.option(
    "--depth",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Candidates that a cross-encoder reranks.",
)
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Cut of nDCG.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="If it may serve, copy it beside this link and point the link at the copy, in one step.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/promote"),
    show_default=True,
    help="Where answers are kept until it is done; the same command goes on from there if it is interrupted.",
)
@click.option("--overwrite", is_flag=True, help="Ask every query, whatever an interrupted comparison left in --out.")
@click.option("--json", "machine", is_flag=True, help="Write JSON to standard output.")
@pass_connection
def promote(
    connection: Connection,
    /,
    *,
    candidate: Path,
    folders: tuple[Path, ...],
    serving: str,
    kind: str | None,
    into: Path | None,
    machine: bool,
    depth: int,
    k: int,
    out: Path,
    overwrite: bool,
    **chosen: Any,
) -> int:
    """Compare a candidate model with the serving one, and refuse it if it is worse.

    Both answer the same queries in this process. A bi-encoder is judged alone and in hybrid; a cross-encoder over the
    hybrid candidates, each ordering as its own configuration says. It is refused, with exit status 1, if on any set the
    95% interval of the difference lies below 0, with p of 0.05 at most; else what to set is said, and with --into it is
    put in place.
    """
    from winnow_lab.evaluating.sets import read_set
    from winnow_lab.promoting import comparing, deciding
    from winnow_lab.promoting.switching import check_place

    if into:
        # Before an hour of measuring, not after.
        check_place(into)
    what = comparing.Kind(kind) if kind else comparing.kind_of(candidate)
    sets = [read_set(folder, **of_set(chosen)) for folder in folders]
    is_default = click.get_current_context().get_parameter_source("out") is ParameterSource.DEFAULT
    kept = _place_to_keep(out, is_default=is_default)
    compared = asyncio.run(_compare(what, serving, str(candidate), sets, depth=depth, k=k, kept=kept, anew=overwrite))
    comparisons = compared.comparisons
    refusal = deciding.refusal(comparisons)
    if machine or connection.machine:
        emit({"kind": what, "promoted": not refusal, "refusal": refusal, "comparisons": [*map(asdict, comparisons)]})
    else:
        _show(comparisons)
    if refusal:
        say(f"Refused: {refusal}.")
        compared.forget()
        return 1
    place = _put(candidate, into) if into else candidate
    # Not before: a disk that is full now leaves nothing to measure again.
    compared.forget()
    _say_what_to_set(what, place)
    return 0


def _place_to_keep(out: Path, *, is_default: bool) -> Path | None:
    """The folder for answers. None where the default cannot be written, which is said."""
    from winnow_lab.evaluating.unfinished import UNFINISHED

    folder = out / UNFINISHED
    if is_default:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            say(f"no answer is kept for an interruption: {folder} cannot be written ({error.strerror}); see --out")
            return None
    return folder


async def _compare(
    what: Kind, serving: str, candidate: str, sets: Sequence[Any], *, depth: int, k: int, kept: Path | None, anew: bool
) -> Compared:
    from winnow_lab.bench_report import progress
    from winnow_lab.promoting import comparing

    with progress(window_seconds=300.0) as bars:
        keeping = comparing.Keeping(bars, kept, anew)
        if what is comparing.Kind.BI_ENCODER:
            return await comparing.compare_bi_encoders(serving, candidate, sets, k=k, keeping=keeping)
        return await comparing.compare_cross_encoders(serving, candidate, sets, depth=depth, k=k, keeping=keeping)


def _put(candidate: Path, into: Path) -> Path:
    from winnow_lab.promoting.switching import switch

    before = switch(candidate, into)
    say(f"{into} leads to {into.resolve()} now" + (f"; before, to {before}" if before else ""))
    return into


def _say_what_to_set(what: Kind, place: Path) -> None:
    from winnow_lab.promoting.comparing import Kind

    if what is Kind.CROSS_ENCODER:
        say(f"It may serve: start the reranker with --model {place}, or set WINNOW_RERANKER_MODEL={place}; with the")
        say(f"others: winnow up --reranker-model {place}")
        return
    say(f"It may serve: start the embedder with --model {place}, or set WINNOW_EMBEDDER_MODEL={place}; with the")
    say(f"others: winnow up --model {place}")
    say("Collections that another model filled refuse its vectors: `winnow collections reembed NAME` fills them anew,")
    say("while the former embedder still answers (docs/operations.md).")


def _show(comparisons: Sequence[Comparison]) -> None:
    from winnow_client.cli.output import table
    from winnow_lab.evaluating.tables import probability, signed

    columns = ("queries", "serving", "candidate", "difference", "p", "would show")
    made = table("set", "used as", *columns, right=columns)
    for each in comparisons:
        made.add_row(
            each.set,
            each.system,
            f"{each.query_count:,}",
            f"{each.serving.mean:.3f}",
            f"{each.candidate.mean:.3f}",
            signed(each.difference),
            probability(each.difference.p),
            f"{each.detectable:.3f}",
        )
    made.title = f"{comparisons[0].measure}, candidate less serving"
    made.caption = "would show: the least true loss that so many queries show four times of five"
    console().print(made)
