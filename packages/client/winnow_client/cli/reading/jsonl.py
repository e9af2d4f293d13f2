"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from winnow_client.cli.reading.lines import not_utf8, read_lines
from winnow_client.cli.reading.records import MAX_RECORD_BYTES, Place, Refusal, Row, Unfit


def read_jsonl(stream: IO[bytes], *, file: str, on_read: Callable[[int], None]) -> Iterator[Row | Refusal]:
    """Yields a row for each line that holds an object; blank lines are skipped, other lines refused."""
    for number, line in read_lines(stream, on_read=on_read):
        if line is not None and not line.strip():
            continue
        yield _row(line, Place(file, number))


def _row(line: bytes | None, place: Place) -> Row | Refusal:
    try:
        return Row(place, _object(line))
    except Unfit as unfit:
        return Refusal(place, unfit.reason, unfit.message)


def _object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise Unfit("RECORD_TOO_LARGE", f"the line is longer than {MAX_RECORD_BYTES} bytes")
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise Unfit("NOT_UTF8", not_utf8(error)) from error
    except json.JSONDecodeError as error:
        raise Unfit("INVALID_JSON", f"not valid JSON: {error.msg}, column {error.colno}") from error
    except RecursionError as error:
        raise Unfit("INVALID_JSON", "nested too deeply") from error
    except ValueError as error:
        # A whole number of thousands of digits, which Python does not convert.
        raise Unfit("INVALID_JSON", "holds a number that is too long") from error
    if not isinstance(value, dict):
        raise Unfit("WRONG_TYPE", "the line is not a JSON object")
    return value
