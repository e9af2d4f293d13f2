"""Lines of a stream of bytes, none of them longer than memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO

from winnow_client.cli.reading.records import MAX_RECORD_BYTES

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(
    stream: IO[bytes], *, on_read: Callable[[int], None], limit: int = MAX_RECORD_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Yields each line with its number from 1, without its end; None for one longer than `limit` bytes.

    `on_read` hears how many bytes were taken from the stream.
    """
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        on_read(len(line))
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if len(line) > limit and not line.endswith(b"\n"):
            while (rest := stream.readline(limit)) and not rest.endswith(b"\n"):
                on_read(len(rest))
            on_read(len(rest))
            yield number, None
        else:
            yield number, line.rstrip(b"\r\n")


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with bytes that are no UTF-8, in a sentence."""
    return f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is not valid UTF-8"
