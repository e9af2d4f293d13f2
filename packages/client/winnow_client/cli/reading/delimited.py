"""CSV and TSV with a header line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import IO

from winnow_client.cli.reading.lines import not_utf8, read_lines
from winnow_client.cli.reading.records import MAX_RECORD_BYTES, Place, Refusal, Row


def read_delimited(
    stream: IO[bytes], *, file: str, delimiter: str, on_read: Callable[[int], None]
) -> Iterator[Row | Refusal]:
    """Yields a row for each record. One that has more or fewer values than the header, or is no UTF-8, is refused."""
    # The module's own limit of 128 KiB a value is one for the whole process; there is no other way to raise it.
    csv.field_size_limit(MAX_RECORD_BYTES)
    reader = csv.reader(_texts(stream, on_read), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1
        place = Place(file, first)
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal(place, "INVALID_CSV", f"not valid CSV: {error}")
            continue
        if not values:
            continue
        broken = _broken(values)
        if broken is not None:
            yield Refusal(place, "NOT_UTF8", broken)
            if header is None:
                return
        elif header is None:
            header = values
            if len(set(header)) != len(header):
                yield Refusal(place, "INVALID_CSV", "the header names a column twice")
                return
        elif len(values) != len(header):
            message = f"{len(values)} values under a header of {len(header)}"
            yield Refusal(place, "WRONG_NUMBER_OF_VALUES", message)
        else:
            yield Row(place, dict(zip(header, values, strict=True)))


def _texts(stream: IO[bytes], on_read: Callable[[int], None]) -> Iterator[str]:
    for _, line in read_lines(stream, on_read=on_read):
        # Bytes that are no UTF-8 become lone surrogates, so that their record alone is refused.
        yield "\0" if line is None else line.decode(errors="surrogateescape") + "\n"


def _broken(values: list[str]) -> str | None:
    for value in values:
        try:
            value.encode(errors="surrogateescape").decode()
        except UnicodeDecodeError as error:
            return not_utf8(error)
        if "\0" in value:
            return "holds a zero byte, or a line that is too long"
    return None
