"""`winnow demo`: the whole system on real text, from nothing to three searches.

It starts the four services on free ports, indexes the documentation of the Python standard library, shows for each
query what retrieval found and what reranking made of it, and stops what it started. What is indexed is kept for the
next run.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import click
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from winnow_client import (
    Acknowledgement,
    AsyncClient,
    Document,
    Hit,
    IngestOutcome,
    MetadataField,
    MetadataType,
    SearchMode,
    SearchResult,
)
from winnow_client.cli.connection import Connection, pass_connection
from winnow_client.cli.output import console, emit, printable
from winnow_client.cli.processes_stack import Stack, StackConfig, StackFailed
from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_client.cli.supervision_log import Entry, as_json
from winnow_rpc.faults import AlreadyExists, FailedPrecondition, Fault

QUERIES = (
    "run a shell command and capture what it prints",
    "how to cancel all tasks when one of them fails",
    "insert an element so that the list stays sorted",
)
"""What is asked unless `--query` says otherwise."""

_SHOWN = 5
_CANDIDATES = 100
_REFUSALS_SHOWN = 3
# Columns of a terminal that ranks, scores and rules take.
_BESIDE_TITLES = 46
# Longer than any start with a model that has to be fetched; shorter than a person's patience with a hanging one.
_READY_SECONDS = 900.0
# A demonstration on a machine that is busy otherwise should be slow, not fail.
_SEARCH_SECONDS = 300.0


@click.command(epilog='Example: winnow demo --query "parse a date in ISO format"')
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path(".winnow/demo"),
    show_default=True,
    help="Directory for the index and the services' log; kept for the next run.",
)
@click.option("--query", "queries", multiple=True, help="Ask this instead of the three queries; may be repeated.")
@click.option("--limit-documents", type=click.IntRange(min=1), help="Index only so many documents.")
@click.option("--keep", is_flag=True, help="Leave the services running until Ctrl-C.")
@click.option("--json", "machine", is_flag=True, help="Write results as JSON, one object a line.")
@pass_connection
def demo(
    connection: Connection,
    *,
    data: Path,
    queries: Sequence[str],
    limit_documents: int | None,
    keep: bool,
    machine: bool,
) -> None:
    """Index the documentation of the Python standard library and search it.

    Starts the four services on free ports of this machine, shows for every query what the first stage found and how the
    cross-encoder ordered it, and stops them. A second run embeds nothing that is unchanged.
    """
    screen = _Screen(machine=machine or connection.machine)
    plan = _Plan(data=data, queries=tuple(queries) or QUERIES, limit_documents=limit_documents, keep=keep)
    try:
        asyncio.run(_run(plan, screen))
    except Fault as fault:
        raise click.ClickException(fault.message) from fault
    except asyncio.CancelledError:
        raise click.Abort from None


@dataclass(frozen=True)
class _Plan:
    data: Path
    queries: tuple[str, ...]
    limit_documents: int | None
    keep: bool

    @property
    def collection(self) -> str:
        """Another Python has other documentation, under the same names."""
        return f"python-{sys.version_info.major}.{sys.version_info.minor}"


async def _run(plan: _Plan, screen: _Screen) -> None:
    task = asyncio.current_task()
    assert task is not None
    # Ctrl-C is asyncio.run's own; this makes SIGTERM the same, so that the services are drained.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with _open_log(plan.data) as log:
        async with _started(plan, screen, log) as (stack, documents):
            async with AsyncClient(stack.gateway_address) as client:
                await _create(client, plan.collection)
                await _index(client, plan.collection, documents, screen)
                # Both stages are to be seen, however few the documents are.
                search = partial(client.search, plan.collection, mode=SearchMode.TWO_STAGE, timeout=_SEARCH_SECONDS)
                for query in plan.queries:
                    screen.searched(query, await search(query, limit=_CANDIDATES, depth=_CANDIDATES))
            if plan.keep:
                screen.kept(stack.gateway_address, plan.collection)
                await _until_told(stack)
    screen.stopped()


def _open_log(data: Path) -> TextIO:
    path = data / "services.log"
    try:
        data.mkdir(parents=True, exist_ok=True)
        # A demonstration that runs already in this directory, and will make this one fail, keeps its own.
        path.unlink(missing_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise FailedPrecondition(f"{data} cannot be used for the demonstration: {error.strerror}") from error


async def _until_told(stack: Stack) -> None:
    """Waits for Ctrl-C or SIGTERM. Raises StackFailed if the services cannot go on."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    failing = asyncio.create_task(stack.failure())
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait([failing, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if failing.done():
        raise StackFailed(failing.result())
    failing.cancel()


@asynccontextmanager
async def _started(plan: _Plan, screen: _Screen, log: TextIO) -> AsyncIterator[tuple[Stack, list[Document]]]:
    """The running stack and the documents; both are made at the same time."""

    def write(entry: Entry) -> None:
        log.write(as_json(entry) + "\n")
        log.flush()

    began = time.monotonic()
    config = StackConfig(
        data=plan.data / "index", gateway_port=0, index_port=0, embedder_port=0, reranker_port=0,
        ready_seconds=_READY_SECONDS,
    )  # fmt: skip
    with screen.progress() as progress:
        reading = progress.add_task("reading the standard library", total=None)
        starting = progress.add_task("starting the services", total=None)

        def read(done: int, total: int) -> None:
            progress.update(reading, completed=done, total=total)

        gathering = asyncio.create_task(asyncio.to_thread(stdlib_documents, read))
        stack = Stack(config, listener=write)
        try:
            await stack.start()
            progress.update(starting, completed=1, total=1)
            documents = _spread(await gathering, plan.limit_documents)
        except BaseException:
            gathering.cancel()
            await stack.stop()
            raise
    try:
        screen.started(stack, seconds=time.monotonic() - began, document_count=len(documents), log=Path(log.name))
        yield stack, documents
    finally:
        await stack.stop()


def _spread(documents: list[Document], limit: int | None) -> list[Document]:
    """So many of the documents, from all over the library."""
    if limit is None or limit >= len(documents):
        return documents
    return [documents[position * len(documents) // limit] for position in range(limit)]


async def _create(client: AsyncClient, collection: str) -> None:
    fields = [MetadataField(key, MetadataType.KEYWORD) for key in ("module", "kind")]
    try:
        await client.create_collection(
            collection, description="The documentation of the Python standard library", metadata_fields=fields
        )
    except AlreadyExists:
        return


async def _index(client: AsyncClient, collection: str, documents: Sequence[Document], screen: _Screen) -> None:
    try:
        await _ingest(client, collection, documents, screen)
    except FailedPrecondition as fault:
        if fault.reason != "EMBEDDER_MISMATCH":
            raise
        screen.note("the collection was filled by another model, so it is made anew")
        await client.delete_collection(collection)
        await _create(client, collection)
        await _ingest(client, collection, documents, screen)


async def _ingest(client: AsyncClient, collection: str, documents: Sequence[Document], screen: _Screen) -> None:
    counts: Counter[IngestOutcome] = Counter()
    refusals: list[Acknowledgement] = []
    began = time.monotonic()
    with screen.progress(rate=True) as progress:
        bar = progress.add_task("indexing", total=len(documents), rate="")
        async for acknowledgement in client.ingest(collection, documents):
            counts[acknowledgement.outcome] += 1
            if acknowledgement.refusal:
                refusals.append(acknowledgement)
            progress.update(bar, advance=1, rate=_rate(counts.total(), time.monotonic() - began))
    screen.ingested(counts, refusals, seconds=time.monotonic() - began)


def _rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 1e-3):,.0f} documents/s"


class _Screen:
    """What the demo shows: tables for people, or JSON lines."""

    def __init__(self, *, machine: bool) -> None:
        self._machine = machine
        self._out = console()
        self._err = console(stderr=True)

    def progress(self, *, rate: bool = False) -> Progress:
        """A progress bar on standard error; where that is no terminal, only its end is written."""
        columns = [TextColumn("  {task.description:28}"), BarColumn(), MofNCompleteColumn()]
        if rate:
            columns += [TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True)]
        return Progress(*columns, console=self._err, disable=self._machine)

    def note(self, sentence: str) -> None:
        """Something that a person may want to know."""
        self._emit({"event": "note", "message": sentence}, f"  {sentence}")

    def started(self, stack: Stack, *, seconds: float, document_count: int, log: Path) -> None:
        """The services serve, and the documents are read."""
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        self._emit(
            {
                "event": "started",
                "seconds": round(seconds, 3),
                "document_count": document_count,
                "addresses": stack.addresses,
                "log": str(log),
            },
            f"  {document_count:,} documents about {version}; four services serving after {seconds:.1f} s (log: {log})",
        )

    def ingested(self, counts: Counter[IngestOutcome], refusals: Sequence[Acknowledgement], *, seconds: float) -> None:
        """Every document has been acknowledged."""
        indexed, unchanged = counts[IngestOutcome.INDEXED], counts[IngestOutcome.UNCHANGED]
        refused = counts[IngestOutcome.REFUSED]
        lines = [
            f"  indexed {indexed:,}, unchanged {unchanged:,}, refused {refused:,} "
            f"in {seconds:.1f} s ({_rate(counts.total(), seconds)})"
        ]
        shown = [(each.id, each.refusal.message) for each in refusals if each.refusal]
        lines += [f"  refused {name}: {why}" for name, why in shown[:_REFUSALS_SHOWN]]
        self._emit(
            {
                "event": "ingested",
                "indexed": indexed,
                "unchanged": unchanged,
                "refused": refused,
                "seconds": round(seconds, 3),
                "refusals": [{"id": name, "message": why} for name, why in shown],
            },
            "\n".join(lines),
        )

    def searched(self, query: str, result: SearchResult) -> None:
        """A search was answered."""
        if self._machine:
            self._emit({"event": "searched", **_search_facts(query, result)}, "")
            return
        self._out.print()
        self._out.print(Text(f"  {query}", style="bold"))
        self._out.print(both_stages(result, width=self._out.width))
        self._out.print(Text(f"  {_times(result)}", style="dim"))
        for degradation in result.degradations:
            self._out.print(Text(f"  degraded: {degradation.message}", style="yellow"))

    def kept(self, address: str, collection: str) -> None:
        """The services go on running."""
        self._emit(
            {"event": "kept", "address": address, "collection": collection},
            f"\n  running until Ctrl-C; in another terminal:\n"
            f'    winnow search --gateway {address} {collection} "what are you looking for?"',
        )

    def stopped(self) -> None:
        """All services have ended."""
        self._emit({"event": "stopped"}, "\n  all services have stopped; a second run embeds nothing twice")

    def _emit(self, facts: dict[str, object], text: str) -> None:
        if self._machine:
            emit(facts)
        else:
            self._out.print(Text(text))


def both_stages(result: SearchResult, *, width: int) -> Table:
    """The best of retrieval on the left, the best after reranking on the right, in `width` columns of a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    title_width = max(16, min(46, (width - _BESIDE_TITLES) // 2))
    table.add_column("", justify="right", no_wrap=True, min_width=1, style="dim")
    table.add_column("retrieval", no_wrap=True, overflow="ellipsis", width=title_width)
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("", no_wrap=True, min_width=1, style="dim")
    ordered = "reranking, ranks mixed" if result.mixing else "reranking"
    table.add_column(ordered, no_wrap=True, overflow="ellipsis", width=title_width)
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("rank", justify="right", no_wrap=True, min_width=4)
    table.add_column("was", justify="right", no_wrap=True, min_width=3)
    retrieved = sorted(result.hits, key=lambda hit: hit.retrieval.rank if hit.retrieval else len(result.hits))
    pairs = list(zip(retrieved, result.hits, strict=True))
    for rank, (left, right) in enumerate(pairs[:_SHOWN], start=1):
        table.add_row(
            str(rank),
            _title(left),
            f"{left.retrieval.score:.3f}" if left.retrieval else "",
            "│\n│",
            _title(right),
            f"{right.rerank.score:.3f}" if right.rerank else "",
            str(right.rerank.rank) if right.rerank else "",
            _movement(right),
        )
    return table


def _title(hit: Hit) -> Text:
    return Text.assemble((printable(hit.document.title), "bold"), "\n", (printable(_summary(hit.document)), "dim"))


def _summary(document: Document) -> str:
    """The first paragraph that is not merely how to call it."""
    paragraphs = document.text.split("\n\n")
    calls = (f"{document.title}(", f"{document.title.rpartition('.')[2]}(")
    told = (paragraph for paragraph in paragraphs if not paragraph.startswith(calls))
    return " ".join(next(told, paragraphs[0]).split())


def _movement(hit: Hit) -> Text:
    """The rank that retrieval gave, coloured by where reranking took it."""
    if not hit.retrieval:
        return Text("")
    style = "green" if hit.retrieval.rank > hit.rank else "red" if hit.retrieval.rank < hit.rank else "dim"
    return Text(str(hit.retrieval.rank), style=style)


def _times(result: SearchResult) -> str:
    timing = result.timing
    stages = {
        "embed": timing.embed_micros,
        f"retrieve ({result.candidate_count})": timing.retrieve_micros,
        f"rerank ({result.reranked_count})": timing.rerank_micros,
        "rest": timing.gateway_micros,
        "total": timing.total_micros,
    }
    return "milliseconds: " + " · ".join(f"{name} {micros / 1000:.1f}" for name, micros in stages.items())


def _search_facts(query: str, result: SearchResult) -> dict[str, object]:
    timing = result.timing
    return {
        "query": query,
        "mode": result.mode,
        "candidates": result.candidate_count,
        "reranked": result.reranked_count,
        "millis": {
            "embed": timing.embed_micros / 1000,
            "retrieve": timing.retrieve_micros / 1000,
            "rerank": timing.rerank_micros / 1000,
            "gateway": timing.gateway_micros / 1000,
            "total": timing.total_micros / 1000,
        },
        "hits": [
            {
                "rank": hit.rank,
                "id": hit.document.id,
                "title": hit.document.title,
                "link": hit.document.metadata.get("link"),
                "retrieval": hit.retrieval,
                "rerank": hit.rerank,
            }
            for hit in result.hits[:_SHOWN]
        ],
        "degradations": [degradation.message for degradation in result.degradations],
    }
