"""`winnow calibrate`: learns mixing and calibration of a cross-encoder and stores them with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from winnow_lab.calibrating.collecting import Collected, SetSplit
    from winnow_lab.calibrating.learning import Part

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(
    epilog="\b\nExamples:\n  winnow calibrate models/reranker --data data/squad:dev --data data/travel-dup:dev\n"
    "  winnow calibrate models/mine --data data/cranfield:test --check data/cranfield:test --dry-run"
)
@click.argument("reranker", type=_FOLDER)
@click.option(
    "--data",
    "learned_from",
    multiple=True,
    required=True,
    metavar="SET[:SPLIT]",
    help="Judged set in the BEIR layout to learn from. Repeatable: several domains make a mixing that travels.  "
    "[default split: dev, or test where there is none]",
)
@click.option(
    "--check",
    "checked_on",
    multiple=True,
    metavar="SET[:SPLIT]",
    help="Set to check on, from which nothing is learned. The same as under --data: one half of its queries is learned "
    "from, the other checked on. Repeatable.",
)
@click.option("--depth", type=click.IntRange(10, 1000), default=100, show_default=True, help="Candidates of a query.")
@click.option(
    "--queries",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Queries of a set, at most; the same ones each time.",
)
@click.option("--embedder", help="Bi-encoder of the first stage: a folder or a hub id.  [default: the embedder's own]")
@click.option(
    "--index",
    "index_data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/quality"),
    show_default=True,
    help="Where the sets are indexed; kept for the next run.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/calibrate"),
    show_default=True,
    help="Where candidates and their scores are kept: what is there is not searched again.",
)
@click.option("--skip-missing", is_flag=True, help="Leave out judgements of documents that are not there.")
@click.option("--out", type=_FOLDER, help="Folder to write winnow.json to.  [default: RERANKER]")
@click.option("--dry-run", is_flag=True, help="Report, and write nothing to the model.")
@click.option("--json", "machine_readable", is_flag=True, help="Write the report to standard output as JSON.")
def calibrate(
    *,
    reranker: Path,
    learned_from: tuple[str, ...],
    checked_on: tuple[str, ...],
    depth: int,
    queries: int,
    embedder: str | None,
    index_data: Path,
    cache: Path,
    skip_missing: bool,
    out: Path | None,
    dry_run: bool,
    machine_readable: bool,
) -> None:
    """Learn how the cross-encoder in RERANKER is best mixed with the first stage, and what its scores mean.

    Searches the judged sets over services that are started here, learns weights for mixing its scores with those of
    vectors and BM25, and a calibration from scores to probabilities, reports what both are worth on queries that they
    were not learned from, and stores them in the model's winnow.json, which the services read.
    """
    from winnow_client.cli import output
    from winnow_inference.models.learned import FILE, Mixing, read_learned, write_learned
    from winnow_lab.bench_report import progress
    from winnow_lab.calibrating.collecting import Collecting, collect
    from winnow_lab.calibrating.learning import learn_all, to_store
    from winnow_lab.calibrating.report import plain, tables

    to_learn, to_check = [_set_split(text) for text in learned_from], [_set_split(text) for text in checked_on]
    collecting = Collecting(
        reranker=reranker,
        embedder=embedder,
        depth=depth,
        queries=queries,
        data=index_data,
        cache=cache,
        skip_missing=skip_missing,
    )
    # Ranks are mixed for whoever asks for it, as they were before.
    rank_mixing = read_learned(reranker).mixing or Mixing(k=10, retrieval_weight=1, rerank_weight=1)
    with progress() as bars:
        everything = asyncio.run(collect(list(dict.fromkeys([*to_learn, *to_check])), collecting, bars))
    collected = {each.split: each for each in everything}
    report = learn_all(
        [_part(collected[split], half=0 if split in to_check else None) for split in dict.fromkeys(to_learn)],
        [_part(collected[split], half=1 if split in to_learn else None) for split in dict.fromkeys(to_check)],
        rank_mixing=rank_mixing,
    )
    learned = to_store(report, rank_mixing=rank_mixing, date=f"{datetime.now(UTC):%Y-%m-%d}")
    if machine_readable:
        output.emit(plain(report))
    else:
        screen = output.console()
        for part in tables(report):
            screen.print(part)
    if dry_run:
        output.say("nothing is written: --dry-run")
        return
    write_learned(out or reranker, learned)
    output.say(f"written to {(out or reranker) / FILE}; a reranker reads it when it starts")


def _set_split(text: str) -> SetSplit:
    from winnow_lab.calibrating.collecting import SetSplit
    from winnow_lab.data.beir import splits_of

    if Path(text).is_dir() or ":" not in text:
        name, split = text, ""
    else:
        name, _, split = text.rpartition(":")
    # However a folder is written, it is the same set: what is learned from is never what is checked on.
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise click.UsageError(f"there is no folder {name}", click.get_current_context())
    return SetSplit(folder, split or ("dev" if "dev" in splits_of(folder) else "test"))


def _part(collected: Collected, *, half: int | None) -> Part:
    from winnow_lab.calibrating.candidates import half_of
    from winnow_lab.calibrating.learning import Part

    queries = [query for query in collected.queries if half is None or half_of(query.query_id) == half]
    return Part(name=collected.split.folder.name, split=collected.split.split, queries=queries, source=collected.source)
