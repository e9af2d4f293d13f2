"""`winnow get`, `winnow documents` and `winnow delete`."""

from __future__ import annotations

import json

import click

from winnow_client.cli.connection import Connection, confirm, connection_options, pass_connection
from winnow_client.cli.output import console, emit, plain, printable, snippet, table
from winnow_client.cli.where import WHERE_HELP, WhereType, parse_where


@click.command(epilog="Example: winnow get docs guide/install.md")
@click.argument("collection")
@click.argument("document_id", metavar="ID")
@connection_options()
@pass_connection
def get(connection: Connection, *, collection: str, document_id: str) -> None:
    """Show the document ID of COLLECTION."""
    with connection.client() as client:
        stored = client.get_document(collection, document_id)
    if connection.machine:
        emit({**plain(stored.document), "update_time": stored.update_time})
        return
    from rich.text import Text

    out = console()
    document = stored.document
    out.print(Text(printable(document.title or document.id), style="bold"))
    written = f", written {stored.update_time:%Y-%m-%d %H:%M:%S} UTC" if stored.update_time else ""
    out.print(Text(printable(f"{document.id}{written}"), style="dim"))
    for key, value in document.metadata.items():
        out.print(printable(f"{key}: {json.dumps(value, ensure_ascii=False)}"), soft_wrap=True)
    if document.text:
        out.print(f"\n{printable(document.text)}", soft_wrap=True)


@click.command(epilog="Example: winnow documents docs --where lang=en --limit 20")
@click.argument("collection")
@click.option("--where", multiple=True, type=WhereType(), help=WHERE_HELP)
@click.option("--limit", type=click.IntRange(min=1), help="Documents to list.  [default: 50, with --json all]")
@connection_options()
@pass_connection
def documents(connection: Connection, *, collection: str, where: tuple[str, ...], limit: int | None) -> None:
    """List documents of COLLECTION, in an order of the index's own. With --json, one line a document."""
    most = limit if limit is not None or connection.machine else 50
    listed = table("id", "title", "text")
    more = False
    with connection.client() as client:
        found = client.list_documents(
            collection, where=parse_where(where), page_size=None if most is None else min(most + 1, 1000)
        )
        for count, document in enumerate(found):
            if most is not None and count >= most:
                more = True
                break
            if connection.machine:
                emit(document)
            else:
                listed.add_row(*(snippet(text, "", width=60) for text in (document.id, document.title, document.text)))
        found.close()
    if connection.machine:
        return
    out = console()
    out.print(listed if listed.row_count else "There are no such documents.")
    if more:
        out.print(f"There are more than these {most}; --limit shows more.")


@click.command(
    epilog="\b\nExamples:\n  winnow delete docs guide/old.md guide/older.md\n"
    "  winnow delete docs --where 'year<2000' --yes"
)
@click.argument("collection")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--where", multiple=True, type=WhereType(), help=WHERE_HELP)
@click.option("--yes", is_flag=True, help="Do not ask before deleting by --where.")
@connection_options()
@pass_connection
def delete(connection: Connection, *, collection: str, ids: tuple[str, ...], where: tuple[str, ...], yes: bool) -> None:
    """Delete documents of COLLECTION, by ID or by --where. Unknown ids are no error."""
    if bool(ids) == bool(where):
        raise click.UsageError("name documents by ID or by --where, one of the two", click.get_current_context())
    if where:
        confirm(f"Delete all documents of {collection!r} with {' and '.join(where)}?", yes=yes)
    with connection.client() as client:
        deleted = client.delete_documents(collection, ids=ids or None, where=parse_where(where))
    if connection.machine:
        emit({"collection": collection, "deleted_document_count": deleted})
    else:
        click.echo(f"Deleted {deleted:,} {'document' if deleted == 1 else 'documents'} from {collection}.")
