"""`winnow keys`: the file of API keys that a gateway reads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from winnow_client.cli.connection import Connection, confirm, pass_connection
from winnow_client.cli.output import console, emit, say, table
from winnow_rpc.api_keys import ApiKey, Scope, make_key, read_keys, write_keys

_file = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    envvar="WINNOW_API_KEYS_FILE",
    help="The file of keys; else WINNOW_API_KEYS_FILE. The gateway's setting is api_keys_file.",
)
_json = click.option("--json", "machine", is_flag=True, help="Write JSON to standard output.")


@click.group(epilog="Example: winnow keys create website --file keys.json --scope read")
def keys() -> None:
    """Make, list and revoke the API keys of a gateway.

    A gateway that runs reads the file anew when it changes. To rotate a key, create another, hand it out, and revoke
    the first when nobody uses it any more.
    """


@keys.command(
    epilog="\b\nExamples:\n  winnow keys create website --file keys.json --scope read\n"
    "  winnow keys create acme --file keys.json --scope read --scope write --collections 'acme-*' --days 90"
)
@click.argument("id_", metavar="ID")
@_file
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    required=True,
    help="What it may do: read (search and look), write (ingest and delete documents), admin (make, delete and "
    "re-embed collections). None includes another. Repeatable.",
)
@click.option(
    "--collections",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Collections on which it may; *, ? and [...] as in a shell. Repeatable.  [default: *]",
)
@click.option("--days", type=click.IntRange(1, 36_500), help="Refused after so many days.  [default: never]")
@_json
@pass_connection
def create(
    connection: Connection,
    *,
    id_: str,
    path: Path,
    scopes: tuple[str, ...],
    patterns: tuple[str, ...],
    days: int | None,
    machine: bool,
) -> None:
    """Make a key called ID and write it to standard output, this once: the file keeps a hash of it alone."""
    now = datetime.now(UTC)
    try:
        key, token = make_key(
            id_,
            scopes=[Scope(scope) for scope in scopes],
            collections=patterns or ("*",),
            expires=None if days is None else now + timedelta(days=days),
            now=now,
        )
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error

    def add(there: list[ApiKey]) -> list[ApiKey]:
        if any(each.id == id_ for each in there):
            raise click.ClickException(f"{path} has a key {id_!r} already: revoke it, or take another id.")
        return [*there, key]

    _change(path, add)
    if machine or connection.machine:
        emit({**_shown(key), "key": token})
    else:
        click.echo(token)
        say("This key is not shown again.")


@keys.command("list", epilog="Example: winnow keys list --file keys.json")
@_file
@_json
@pass_connection
def list_(connection: Connection, *, path: Path, machine: bool) -> None:
    """List the keys: ids, scopes, collections and times; the keys themselves are not in the file."""
    found = _read(path)
    if machine or connection.machine:
        for key in found:
            emit(_shown(key))
        return
    rows = table("id", "scopes", "collections", "created", "expires")
    now = datetime.now(UTC)
    for key in found:
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d}"
        rows.add_row(
            key.id,
            ", ".join(_scopes(key)),
            ", ".join(key.collections),
            f"{key.created:%Y-%m-%d}",
            f"{expires} (expired)" if key.expired(now) else expires,
        )
    console().print(rows if rows.row_count else "There are no keys: every call is refused.")


@keys.command(epilog="Example: winnow keys revoke website --file keys.json --yes")
@click.argument("id_", metavar="ID")
@_file
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
@pass_connection
def revoke(connection: Connection, *, id_: str, path: Path, yes: bool, machine: bool) -> None:
    """Take the key called ID out of the file; within a second or two it is refused."""
    confirm(f"Revoke the API key {id_!r}?", yes=yes)

    def remove(there: list[ApiKey]) -> list[ApiKey]:
        left = [each for each in there if each.id != id_]
        if len(left) == len(there):
            raise click.ClickException(f"{path} has no key {id_!r}.")
        return left

    _change(path, remove, must_be_there=True)
    if machine or connection.machine:
        emit({"revoked": id_})


def _read(path: Path) -> list[ApiKey]:
    try:
        return read_keys(path)
    except ValueError as error:
        raise click.ClickException(f"{error}.") from error


def _change(path: Path, change: Callable[[list[ApiKey]], list[ApiKey]], *, must_be_there: bool = False) -> None:
    """Reads, changes and writes, with no other `winnow keys` in between."""
    with _alone(path.parent):
        write_keys(path, change(_read(path) if must_be_there or path.exists() else []))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    # The directory and not the file: that is another one after each change.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _scopes(key: ApiKey) -> list[str]:
    return [scope.value for scope in Scope if scope in key.scopes]


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "scopes": _scopes(key),
        "collections": key.collections,
        "created": key.created,
        "expires": key.expires,
    }
