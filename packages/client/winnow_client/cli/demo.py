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

from winnow_client import (
    Acknowledgement,
    AsyncClient,
    Document,
    IngestOutcome,
    MetadataField,
    MetadataType,
    SearchMode,
)
from winnow_client.cli.connection import Connection, pass_connection
from winnow_client.cli.demo_screen import Screen, pace
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

_CANDIDATES = 100
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
    screen = Screen(machine=machine or connection.machine)
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


async def _run(plan: _Plan, screen: Screen) -> None:
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
async def _started(plan: _Plan, screen: Screen, log: TextIO) -> AsyncIterator[tuple[Stack, list[Document]]]:
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


async def _index(client: AsyncClient, collection: str, documents: Sequence[Document], screen: Screen) -> None:
    try:
        await _ingest(client, collection, documents, screen)
    except FailedPrecondition as fault:
        if fault.reason != "EMBEDDER_MISMATCH":
            raise
        screen.note("the collection was filled by another model, so it is made anew")
        await client.delete_collection(collection)
        await _create(client, collection)
        await _ingest(client, collection, documents, screen)


async def _ingest(client: AsyncClient, collection: str, documents: Sequence[Document], screen: Screen) -> None:
    counts: Counter[IngestOutcome] = Counter()
    refusals: list[Acknowledgement] = []
    began = time.monotonic()
    with screen.progress(rate=True) as progress:
        bar = progress.add_task("indexing", total=len(documents), rate="")
        async for acknowledgement in client.ingest(collection, documents):
            counts[acknowledgement.outcome] += 1
            if acknowledgement.refusal:
                refusals.append(acknowledgement)
            progress.update(bar, advance=1, rate=pace(counts.total(), time.monotonic() - began))
    screen.ingested(counts, refusals, seconds=time.monotonic() - began)
