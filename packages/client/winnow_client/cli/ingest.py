"""`winnow ingest`: documents from files into a collection."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from winnow_client.asynchronous import AsyncClient
from winnow_client.cli.connection import Connection, connection_options, pass_connection
from winnow_client.cli.ingest_progress import Progress
from winnow_client.cli.ingest_run import Tally, run_ingest
from winnow_client.cli.output import emit, say
from winnow_client.cli.reading.mapping import FieldMapping, MetadataColumn
from winnow_client.cli.reading.records import Item, Meter, Refusal
from winnow_client.cli.reading.sources import Format, Input, Unreadable, find_sources, read_items
from winnow_client.collections import MetadataField, MetadataType
from winnow_client.documents import IngestOutcome
from winnow_rpc.faults import AlreadyExists, Fault, NotFound

EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130
REFUSALS_SHOWN = 20
_TYPES = [kind.value for kind in MetadataType if kind is not MetadataType.UNKNOWN]


class RefusalLog:
    """Keeps the first refusals, counts all, and writes all to a file if there is one. For several threads."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.first: list[Refusal] = []
        """The first refusals, as many as are shown."""
        self.count = 0
        """All of them."""

    def add(self, refusal: Refusal) -> None:
        """One more."""
        with self._lock:
            self.count += 1
            if len(self.first) < REFUSALS_SHOWN:
                self.first.append(refusal)
            if self._file is not None:
                self._file.write(json.dumps(as_fields(refusal)) + "\n")


def as_fields(refusal: Refusal) -> dict[str, Any]:
    """A refusal as the fields of a JSON object."""
    place = {"file": refusal.place.file, "line": refusal.place.line}
    return {**place, "id": refusal.id, "reason": refusal.reason, "message": refusal.message}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run is to do."""

    collection: str
    """The collection's name."""
    found: Input
    """What to read."""
    mapping: FieldMapping
    """Which field becomes what."""
    create: bool
    """Whether to make the collection if it is missing."""
    retry_for: float
    """Seconds to wait for a gateway that is away."""


@click.command(
    epilog="\b\nExamples:\n  winnow ingest docs ./my-documents\n"
    "  winnow ingest papers papers.jsonl.gz --id-field _id --metadata-field year:integer\n"
    "  zcat corpus.jsonl.gz | winnow ingest corpus -"
)
@click.argument("collection")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--format",
    "format_",
    type=click.Choice([each.value for each in Format]),
    help="Format of the files.  [default: by their names; - is jsonl]",
)
@click.option("--id-field", default="id", show_default=True, help="Field of the id.")
@click.option("--title-field", default="title", show_default=True, help="Field of the title.")
@click.option("--text-field", default="text", show_default=True, help="Field of the text.")
@click.option(
    "--metadata-field",
    "columns",
    multiple=True,
    metavar="NAME[:TYPE]",
    help="Take this field into the metadata, beside what an object 'metadata' holds. With a TYPE, one of "
    f"{', '.join(_TYPES)}, values are converted to it, and a collection that is made here indexes it. Repeatable.",
)
@click.option("--all-metadata", is_flag=True, help="Take all other fields into the metadata.")
@click.option("--no-create", is_flag=True, help="Do not make the collection if it is missing.")
@click.option(
    "--refusals",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all refusals here.",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a gateway that goes away in the middle.",
)
@connection_options()
@pass_connection
def ingest(
    connection: Connection,
    *,
    collection: str,
    paths: tuple[str, ...],
    format_: str | None,
    id_field: str,
    title_field: str,
    text_field: str,
    columns: tuple[str, ...],
    all_metadata: bool,
    no_create: bool,
    refusals: Path | None,
    retry_for: float,
) -> int:
    """Index the documents of every PATH into COLLECTION: JSON lines, CSV, TSV, Parquet, text, Markdown, or - for
    standard input.

    A folder is read for text and Markdown files; a file's id is its path within the folder, its title the first heading
    or its name. Rows need an id and a text; the fields' names can be mapped. Running it again skips what is unchanged.
    The exit status is 3 if some documents were refused.
    """
    try:
        found = find_sources(paths, format=Format(format_) if format_ else None)
    except Unreadable as error:
        raise click.UsageError(f"{error}.", click.get_current_context()) from error
    if found.left_out:
        say(f"Files of other formats that were left out: {found.left_out:,}.")
    mapping = FieldMapping(
        id=id_field,
        title=title_field,
        text=text_field,
        metadata=tuple(_column(text) for text in columns),
        all_metadata=all_metadata,
    )
    plan = Plan(collection=collection, found=found, mapping=mapping, create=not no_create, retry_for=retry_for)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(refusals.open("w", encoding="utf-8")) if refusals else None
        return Run(plan, connection, RefusalLog(file)).run()


class Run:
    """One run of the command."""

    def __init__(self, plan: Plan, connection: Connection, refusals: RefusalLog) -> None:
        self._plan = plan
        self._connection = connection
        self._refusals = refusals
        self._tally = Tally()
        self._meter = Meter()
        self._created = False

    def run(self) -> int:
        """Ingests, says what came of it, and returns the exit status. Raises the fault that ended it early."""
        interrupted = False
        failure: Fault | None = None
        try:
            asyncio.run(self._ingest())
        except KeyboardInterrupt:
            interrupted = True
        except Fault as fault:
            failure = fault
            if not self._tally.count:
                raise
        self._report(interrupted=interrupted, complete=failure is None and not interrupted)
        if failure is not None:
            raise failure
        if interrupted:
            say("Interrupted. Running the same command again resumes: what is indexed already is skipped.")
            return EXIT_INTERRUPTED
        return EXIT_REFUSED if self._refusals.count else 0

    async def _ingest(self) -> None:
        plan = self._plan
        async with self._connection.async_client() as client:
            await self._find_collection(client)
            self._tally = Tally()
            with Progress(plan.collection, self._tally, self._meter) as progress:

                def on_wait(fault: Fault, seconds: float) -> None:
                    progress.note(f"{fault.message} Trying again in {seconds:.1f} s.")

                await run_ingest(
                    client,
                    plan.collection,
                    self._items(),
                    tally=self._tally,
                    retry_for=plan.retry_for,
                    on_refusal=self._refusals.add,
                    on_wait=on_wait,
                )

    async def _find_collection(self, client: AsyncClient) -> None:
        plan = self._plan
        try:
            await client.get_collection(plan.collection)
        except NotFound:
            if not plan.create:
                raise
            typed = [MetadataField(each.name, each.type) for each in plan.mapping.metadata if each.type is not None]
            # Somebody else may have made it in this moment; then it is there, which is all that is needed.
            with contextlib.suppress(AlreadyExists):
                await client.create_collection(plan.collection, metadata_fields=typed)
                self._created = True
                say(f"Made the collection {plan.collection!r}.")

    def _items(self) -> Iterator[Item]:
        """The documents to send; what readers refuse is counted on the way. Runs in the client's thread."""
        plan = self._plan
        for read in read_items(plan.found.sources, mapping=plan.mapping, meter=self._meter, stdin=_stdin):
            if isinstance(read, Refusal):
                self._tally.add(IngestOutcome.REFUSED)
                self._refusals.add(read)
            else:
                yield read

    def _report(self, *, interrupted: bool, complete: bool) -> None:
        tally, refusals = self._tally, self._refusals
        for refusal in refusals.first:
            say(_sentence(refusal))
        if refusals.count > len(refusals.first):
            say(f"… and {refusals.count - len(refusals.first):,} more; --refusals FILE writes all of them.")
        counts = {each: tally.outcomes[each] for each in IngestOutcome if each is not IngestOutcome.UNKNOWN}
        if self._connection.machine:
            emit(
                {
                    "collection": self._plan.collection,
                    "created": self._created,
                    **{str(outcome): count for outcome, count in counts.items()},
                    "truncated": tally.truncated,
                    "seconds": round(tally.seconds, 3),
                    "documents_per_second": round(tally.rate, 3),
                    "complete": complete,
                    "interrupted": interrupted,
                    "refusals": [as_fields(refusal) for refusal in refusals.first],
                }
            )
            return
        cut = f" ({tally.truncated:,} truncated: longer than the model reads)" if tally.truncated else ""
        click.echo(
            f"Indexed {counts[IngestOutcome.INDEXED]:,}{cut}, unchanged {counts[IngestOutcome.UNCHANGED]:,}, "
            f"refused {counts[IngestOutcome.REFUSED]:,}, in {tally.seconds:.1f} s: {tally.rate:,.1f} documents/s."
        )


def _sentence(refusal: Refusal) -> str:
    # Ids and what is said of them may be as long as they like in the file of refusals.
    named = f" ({_cut(refusal.id, 80)!r})" if refusal.id is not None else ""
    return f"Refused {refusal.place}{named}: {_cut(refusal.message, 300)} ({refusal.reason})"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _column(text: str) -> MetadataColumn:
    name, _, kind = text.rpartition(":")
    if name and kind in _TYPES:
        return MetadataColumn(name, MetadataType(kind))
    return MetadataColumn(text)


def _stdin() -> IO[bytes]:
    """Standard input, as a stream of our own.

    The interpreter cannot end in order while a thread waits in its own stream, as one does after Ctrl-C.
    """
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, ValueError, io.UnsupportedOperation):
        return sys.stdin.buffer
