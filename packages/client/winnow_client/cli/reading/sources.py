"""From paths on a command line to documents: which files, in which format, and each id only once."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from winnow_client.cli.reading.delimited import read_delimited
from winnow_client.cli.reading.jsonl import read_jsonl
from winnow_client.cli.reading.mapping import FieldMapping, document_of
from winnow_client.cli.reading.parquet import read_parquet
from winnow_client.cli.reading.records import Item, Meter, Place, Refusal, Row, Unfit
from winnow_client.cli.reading.text import read_text

STANDARD_INPUT = "-"


class Format(StrEnum):
    """A format that can be read."""

    JSONL = "jsonl"
    """JSON lines: one object a line."""
    CSV = "csv"
    """Values separated by commas, with a header."""
    TSV = "tsv"
    """Values separated by tabs, with a header."""
    PARQUET = "parquet"
    """Parquet."""
    TEXT = "text"
    """Plain text: one document a file."""
    MARKDOWN = "markdown"
    """Markdown: one document a file."""


EXTENSIONS = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    ".rst": Format.TEXT,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
}
"""Extension, in small letters, → format. The first four may be followed by .gz."""

ONE_A_FILE = frozenset({Format.TEXT, Format.MARKDOWN})
"""Formats in which a file is one document."""


class Unreadable(Exception):
    """A path on the command line that names nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or standard input."""

    path: Path | None
    """The file; None: standard input."""
    format: Format
    """Its format."""
    id: str = ""
    """Id of the document, for formats in which a file is one document."""


@dataclass
class Input:
    """Everything a command line names."""

    sources: list[Source] = field(default_factory=list)
    """What is read, in order."""
    left_out: int = 0
    """Files in folders that were left out because of their format."""


def find_sources(paths: Sequence[str], *, format: Format | None) -> Input:
    """What some paths name. In folders, text and Markdown are read, or files of `format` alone. Raises Unreadable."""
    found = Input()
    for given in paths:
        path = Path(given)
        if given == STANDARD_INPUT:
            found.sources.append(_standard_input(format, already=found.sources))
        elif path.is_dir():
            _search_folder(path, format, found)
        elif not path.exists():
            raise Unreadable(f"there is no file or folder {given!r}")
        elif not os.access(path, os.R_OK):
            raise Unreadable(f"{given!r} may not be read")
        else:
            kind = format or format_of(path)
            if kind is None:
                known = ", ".join(EXTENSIONS)
                raise Unreadable(f"the format of {given!r} is not known by its name ({known}): say it with --format")
            found.sources.append(Source(path, kind, path.name))
    return found


def format_of(path: Path) -> Format | None:
    """The format of a file by its name."""
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    kind = EXTENSIONS.get(os.path.splitext(plain)[1])
    return None if plain != name and kind not in (Format.JSONL, Format.CSV, Format.TSV) else kind


def read_items(
    sources: Sequence[Source], *, mapping: FieldMapping, meter: Meter, stdin: Callable[[], IO[bytes]]
) -> Iterator[Item | Refusal]:
    """Yields the documents of all sources in order, and what was refused. An id that comes again is refused."""
    sizes = [_size(source) for source in sources]
    known = [size for size in sizes if size is not None]
    meter.total = sum(known) if len(known) == len(sizes) else None
    first_places: dict[str, Place] = {}
    done = 0
    for source, size in zip(sources, sizes, strict=True):
        meter.current = str(source.path or STANDARD_INPUT)
        for read in _read_source(source, columns=mapping.columns, meter=meter, stdin=stdin):
            yield _finished(read, mapping, first_places)
        # What a reader counted is near the truth; the size is the truth.
        done += size or 0
        meter.done = done if size is not None else meter.done


def read_rows(path: Path, format: Format) -> Iterator[Row | Refusal]:
    """Yields the rows of one file in a format of rows (not text), with all their columns, and what was refused."""
    for read in _read_source(Source(path, format), columns=None, meter=Meter(), stdin=io.BytesIO):
        assert not isinstance(read, Item)
        yield read


def _finished(read: Row | Item | Refusal, mapping: FieldMapping, first_places: dict[str, Place]) -> Item | Refusal:
    if isinstance(read, Refusal):
        return read
    if isinstance(read, Row):
        try:
            read = Item(read.place, document_of(read, mapping))
        except Unfit as unfit:
            return Refusal(read.place, unfit.reason, unfit.message, unfit.id)
    id_ = read.document.id
    first = first_places.setdefault(id_, read.place)
    if first is not read.place:
        return Refusal(read.place, "DUPLICATE_ID", f"the id {id_!r} was read before, at {first}", id_)
    return read


def _read_source(
    source: Source, *, columns: frozenset[str] | None, meter: Meter, stdin: Callable[[], IO[bytes]]
) -> Iterator[Row | Item | Refusal]:
    def on_read(count: int) -> None:
        meter.done += count

    path = source.path
    if path is None:
        yield from _read_stream(stdin(), source, file=STANDARD_INPUT, on_read=on_read)
    elif source.format is Format.PARQUET:
        yield from read_parquet(path, columns=columns, on_read=on_read)
    elif source.format in ONE_A_FILE:
        yield read_text(path, id=source.id, markdown=source.format is Format.MARKDOWN)
    else:
        place = Place(str(path))
        try:
            with path.open("rb") as raw:
                if path.name.lower().endswith(".gz"):
                    before = meter.done

                    def on_unpacked(_count: int) -> None:
                        # Progress is of the packed bytes: their number is known beforehand.
                        meter.done = before + raw.tell()

                    with gzip.open(raw) as unpacked:
                        stream = io.BufferedReader(unpacked)
                        for read in _read_stream(stream, source, file=str(path), on_read=on_unpacked):
                            place = read.place
                            yield read
                else:
                    yield from _read_stream(raw, source, file=str(path), on_read=on_read)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield Refusal(place, "CANNOT_READ", "the compressed file is damaged; what comes after this place is lost")
        except OSError as error:
            yield Refusal(place, "CANNOT_READ", f"cannot be read: {error.strerror}")


def _read_stream(
    stream: IO[bytes], source: Source, *, file: str, on_read: Callable[[int], None]
) -> Iterator[Row | Refusal]:
    if source.format is Format.JSONL:
        return read_jsonl(stream, file=file, on_read=on_read)
    delimiter = "\t" if source.format is Format.TSV else ","
    return read_delimited(stream, file=file, delimiter=delimiter, on_read=on_read)


def _search_folder(folder: Path, format: Format | None, found: Input) -> None:
    wanted = ONE_A_FILE if format is None or format in ONE_A_FILE else {format}
    count = len(found.sources)
    for place, folders, names in os.walk(folder):
        # What is hidden is not text for readers: version control, caches, virtual environments.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            kind = format_of(path)
            if name.startswith(".") or not path.is_file():
                continue
            if kind is not None and kind in wanted:
                found.sources.append(Source(path, kind, path.relative_to(folder).as_posix()))
            else:
                found.left_out += 1
    if len(found.sources) == count:
        kinds = ", ".join(sorted(ending for ending, kind in EXTENSIONS.items() if kind in wanted))
        raise Unreadable(f"the folder {str(folder)!r} holds no file that ends in {kinds}")


def _standard_input(format: Format | None, *, already: Sequence[Source]) -> Source:
    if any(source.path is None for source in already):
        raise Unreadable("standard input (-) can be read only once")
    if format not in (None, Format.JSONL, Format.CSV, Format.TSV):
        raise Unreadable(f"standard input cannot be read as {format}: use jsonl, csv or tsv")
    return Source(None, format or Format.JSONL)


def _size(source: Source) -> int | None:
    """Bytes of a source; None where there is no end that is known, as of a pipe."""
    if source.path is None or not source.path.is_file():
        return None
    return source.path.stat().st_size
