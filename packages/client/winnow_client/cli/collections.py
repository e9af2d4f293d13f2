"""`winnow collections`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from winnow_client.cli.connection import Connection, confirm, connection_options, pass_connection
from winnow_client.cli.output import console, emit, printable, table
from winnow_client.cli.reembed_progress import ReembedShown, resumed
from winnow_client.collections import Collection, HnswConfig, LexicalConfig, MetadataField, MetadataType

TYPES = [kind.value for kind in MetadataType if kind is not MetadataType.UNKNOWN]


@click.group(epilog="Example: winnow collections create papers --metadata-field year:integer")
@connection_options()
def collections() -> None:
    """List, show, create, re-embed and delete collections."""


@collections.command("list", epilog="Example: winnow collections list --json")
@connection_options()
@pass_connection
def list_(connection: Connection) -> None:
    """List the collections by name. With --json, one line a collection."""
    with connection.client() as client:
        found = list(client.list_collections())
    if connection.machine:
        for collection in found:
            emit(collection)
    else:
        show_collections(found)


@collections.command(epilog="Example: winnow collections show papers")
@click.argument("name")
@connection_options()
@pass_connection
def show(connection: Connection, *, name: str) -> None:
    """Show the collection NAME."""
    with connection.client() as client:
        collection = client.get_collection(name)
    if connection.machine:
        emit(collection)
    else:
        show_collection(collection)


@collections.command(
    epilog="\b\nExamples:\n  winnow collections create papers\n"
    "  winnow collections create papers --metadata-field year:integer --metadata-field lang:keyword\n"
    "  winnow collections create aufsaetze --language german"
)
@click.argument("name")
@click.option("--description", default="", help="Free text for people.")
@click.option(
    "--metadata-field",
    "fields",
    multiple=True,
    metavar="NAME:TYPE",
    help=f"A metadata field to index for filtering; TYPE is one of {', '.join(TYPES)}. Repeatable.",
)
@click.option("--m", type=click.IntRange(4, 128), help="Edges per node of the HNSW graph.  [default: 16]")
@click.option("--ef-construct", type=click.IntRange(4, 4096), help="Candidates per inserted node.  [default: 128]")
@click.option(
    "--language",
    help="Whose stop words and word endings BM25 takes off, by its English name; none takes nothing off.  "
    "[default: english]",
)
@click.option("--average-words", type=click.IntRange(1, 1_000_000), help="Words of a usual document.  [default: 128]")
@click.option("--without-lexical", is_flag=True, help="Vectors alone, without BM25.")
@connection_options()
@pass_connection
def create(
    connection: Connection,
    *,
    name: str,
    description: str,
    fields: tuple[str, ...],
    m: int | None,
    ef_construct: int | None,
    language: str | None,
    average_words: int | None,
    without_lexical: bool,
) -> None:
    """Create the collection NAME, bound to the model that the embedder serves now."""
    wanted = [_field(text) for text in fields]
    hnsw = HnswConfig(m=m or 0, ef_construct=ef_construct or 0) if m or ef_construct else None
    if without_lexical and (language or average_words):
        raise click.UsageError("--without-lexical goes with neither --language nor --average-words.")
    lexical = LexicalConfig(language=language or "", average_words=average_words or 0)
    with connection.client() as client:
        collection = client.create_collection(
            name,
            description=description,
            metadata_fields=wanted,
            hnsw=hnsw,
            lexical=lexical if language or average_words else None,
            without_lexical=without_lexical,
        )
    if connection.machine:
        emit(collection)
    else:
        words = f" and for BM25 ({_lexical(collection)})" if collection.lexical else ""
        vectors = f"vectors of {collection.dimension} components by {collection.embedder_id}"
        click.echo(f"Created {name}, for {vectors}{words}.")


@collections.command(epilog="Example: winnow collections delete papers --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection_options()
@pass_connection
def delete(connection: Connection, *, name: str, yes: bool) -> None:
    """Delete the collection NAME and all its documents. This cannot be undone."""
    with connection.client() as client:
        if not yes:
            count = client.get_collection(name).document_count
            confirm(f"Delete the collection {name!r} and its {count:,} documents?", yes=yes)
        deleted = client.delete_collection(name)
    if connection.machine:
        emit({"collection": name, "deleted_document_count": deleted})
    else:
        click.echo(f"Deleted {name} and its {deleted:,} documents.")


@collections.command(epilog="Example: winnow collections reembed papers")
@click.argument("name")
@click.option("--keep-former", is_flag=True, help="Keep the former vectors, so that going back takes little.")
@click.option("--discard", is_flag=True, help="Instead: remove kept vectors, and what an unfinished run has made.")
@connection_options()
@pass_connection
def reembed(connection: Connection, *, name: str, keep_former: bool, discard: bool) -> None:
    """Embed all documents of the collection NAME anew, with the model that the embedder serves now.

    Searches and writes go on, and the new vectors answer when they are complete. A run that is interrupted loses
    nothing: the next one goes on from there. With --json, one line a step.
    """
    if keep_former and discard:
        raise click.UsageError("--keep-former and --discard contradict each other.")
    with connection.client() as client, ReembedShown(name, machine=connection.machine) as shown:
        for progress in resumed(
            lambda: client.reembed_collection(name, keep_former=keep_former, discard=discard), say=shown.note
        ):
            shown.show(progress)
    if connection.machine:
        return
    count = f"{progress.document_count:,} documents"
    if discard:
        click.echo(f"Removed what {name} held beside its {count}.")
    elif progress.embedder_fingerprint == progress.former_embedder_fingerprint:
        click.echo(f"{name} answers with the vectors of this model: nothing was embedded.")
    else:
        click.echo(f"Re-embedded {name}: {count} answer with the vectors of {progress.embedder_fingerprint[:12]}.")


def show_collections(found: Iterable[Collection]) -> None:
    """Writes collections for people, one a row."""
    rows = table("collection", "documents", "in graph", "index", "model", right=("documents", "in graph"))
    for each in found:
        counts = (f"{each.document_count:,}", f"{each.indexed_vector_count:,}")
        rows.add_row(each.name, *counts, each.index_state.value, printable(each.embedder_id))
    console().print(rows if rows.row_count else "There are no collections.")


def show_collection(collection: Collection) -> None:
    """Writes all that is known of a collection for people."""
    fields = ", ".join(f"{each.key} ({each.type.value})" for each in collection.metadata_fields)
    made = f"{collection.create_time:%Y-%m-%d %H:%M:%S} UTC" if collection.create_time else ""
    rows = table("", collection.name)
    for name, value in (
        ("description", collection.description),
        ("documents", f"{collection.document_count:,}"),
        ("vectors in the graph", f"{collection.indexed_vector_count:,}"),
        ("index", collection.index_state.value),
        ("model", collection.embedder_id),
        ("its fingerprint", collection.embedder_fingerprint),
        ("dimension", str(collection.dimension)),
        ("similarity", collection.similarity.value),
        ("indexed metadata", fields),
        ("BM25", _lexical(collection)),
        ("HNSW", f"m {collection.hnsw.m}, ef_construct {collection.hnsw.ef_construct}"),
        ("created", made),
    ):
        if value:
            rows.add_row(name, printable(value))
    console().print(rows)


def _lexical(collection: Collection) -> str:
    lexical = collection.lexical
    return f"{lexical.language}, {lexical.average_words} words on average" if lexical else "none"


def _field(text: str) -> MetadataField:
    key, _, kind = text.rpartition(":")
    if not key or kind not in TYPES:
        known = ", ".join(TYPES)
        raise click.UsageError(f"{text!r} is no NAME:TYPE; TYPE is one of {known}", click.get_current_context())
    return MetadataField(key, MetadataType(kind))
