"""Parquet, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from winnow_client.cli.reading.records import Place, Refusal, Row

_ROWS_AT_ONCE = 256
# Among the first is what Arrow says of strings that are no UTF-8; the second is for times before year 1 or after 9999.
_UNREADABLE = (ValueError, OverflowError)


def read_parquet(
    path: Path, *, columns: frozenset[str] | None, on_read: Callable[[int], None]
) -> Iterator[Row | Refusal]:
    """Yields the rows. Only `columns` are read; None: all. `on_read` hears a share of the file's bytes."""
    import pyarrow
    import pyarrow.parquet

    file = str(path)
    number = 0
    try:
        # Not memory-mapped: a file that shrinks meanwhile would end the process.
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as parquet:  # type: ignore[no-untyped-call]
            known = parquet.schema_arrow.names
            wanted = None if columns is None else [name for name in known if name in columns]
            bytes_per_row = path.stat().st_size / max(1, parquet.metadata.num_rows)
            for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
                for fields in _rows(batch):
                    number += 1
                    place = Place(file, number)
                    if isinstance(fields, UnicodeDecodeError):
                        yield Refusal(place, "NOT_UTF8", "a string of the row is not valid UTF-8")
                    elif isinstance(fields, Exception):
                        yield Refusal(place, "CANNOT_READ", f"a value of the row cannot be read: {_line(fields)}")
                    else:
                        yield Row(place, fields)
                on_read(round(bytes_per_row * batch.num_rows))
    except (pyarrow.ArrowException, OSError) as error:
        yield Refusal(
            Place(file, number + 1 if number else None), "CANNOT_READ", f"cannot be read as Parquet: {_line(error)}"
        )


def _rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    batch = _in_microseconds(batch)
    try:
        yield from batch.to_pylist()
    except _UNREADABLE:
        # Arrow does not check its strings, and has times that Python has not: find the rows that are at fault.
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except _UNREADABLE as error:
                yield error


def _in_microseconds(batch: Any) -> Any:
    """Times in nanoseconds, as pandas writes them, cut to what Python's own times hold."""
    import pyarrow

    for position, column in enumerate(batch.schema):
        if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
            plain = batch.column(position).cast(pyarrow.timestamp("us", column.type.tz), safe=False)
            batch = batch.set_column(position, column.name, plain)
    return batch


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
