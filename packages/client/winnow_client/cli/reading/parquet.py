"""Parquet, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from winnow_client.cli.reading.records import Place, Refusal, Row

_ROWS_AT_ONCE = 256


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
                    else:
                        yield Row(place, fields)
                on_read(round(bytes_per_row * batch.num_rows))
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Refusal(
            Place(file, number + 1 if number else None), "CANNOT_READ", f"cannot be read as Parquet: {reason}"
        )


def _rows(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not check its strings: find the rows that are at fault.
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error
