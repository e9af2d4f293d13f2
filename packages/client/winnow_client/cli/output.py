"""What commands write: JSON for machines, tables for people."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

import click

from winnow_rpc.faults import Fault

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 120


def plain(value: Any) -> Any:
    """A value as JSON holds it: data classes as objects, enums by value, times as RFC 3339, numbers finite or null."""
    match value:
        case Fault():
            made: Any = {"reason": value.reason, "message": value.message, "metadata": dict(value.metadata)}
        case Enum():
            made = value.value
        case datetime():
            made = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case float():
            made = value if math.isfinite(value) else None
        case Mapping():
            made = {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            made = [plain(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            made = {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            made = value
    return made


def emit(value: Any) -> None:
    """Writes a value to standard output as one line of JSON."""
    # A lone half of a surrogate pair, as in the name of a file, cannot be written as UTF-8, nor most of the world's
    # letters in an older encoding; escaped they can.
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    click.echo(text if text.isprintable() and _fits(text) else json.dumps(plain(value), allow_nan=False))


def _fits(text: str) -> bool:
    try:
        text.encode(stream().encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def stream(*, stderr: bool = False) -> TextIO:
    """Standard output or standard error; where a process was started without it, one that takes all in silence."""
    found: TextIO | None = sys.stderr if stderr else sys.stdout
    return io.StringIO() if found is None else found


def say(text: str) -> None:
    """A message for a person, on standard error."""
    click.echo(printable(text), err=True)


def console(*, stderr: bool = False) -> Console:
    """A console of rich that leaves text as it is: no markup, no highlighting."""
    from rich.console import Console

    file = stream(stderr=stderr)
    width = None if file.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in `right` are of numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    return made


def printable(text: str) -> str:
    """Text without what would steer a terminal, so that a document cannot; tabs become spaces."""
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else _shown(char) for char in text
    )


def _shown(char: str) -> str:
    if char in "\t\r":
        return " "
    return f"\\u{ord(char):04x}" if unicodedata.category(char) == "Cs" else "\N{REPLACEMENT CHARACTER}"


def snippet(text: str, query: str, *, width: int = 200) -> str:
    """A stretch of a text of at most `width` characters on one line, from before the first word of the query in it."""
    flat = " ".join(printable(text).split())
    if len(flat) <= width:
        return flat
    lowered = flat.lower()
    words = [word for word in re.findall(r"\w+", query.lower()) if len(word) > 3]
    found = [position for word in words if (position := lowered.find(word)) >= 0]
    start = max(0, min(found, default=0) - width // 4)
    start = min(start, len(flat) - width)
    if start:
        # From the beginning of a word.
        start = flat.find(" ", start - 1) + 1 or start
    cut = flat[start : start + width - 2]
    return f"{'…' if start else ''}{cut}{'…' if start + len(cut) < len(flat) else ''}"


def millis(micros: int) -> str:
    """Microseconds as milliseconds, for people."""
    return f"{micros / 1000:.1f} ms"
