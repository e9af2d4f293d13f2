"""What every text that is read must be."""

from __future__ import annotations

from winnow_client.cli.reading.records import Place
from winnow_rpc.faults import InvalidArgument


def check_text(text: str, what: str, place: Place) -> str:
    """The text itself. Raises InvalidArgument, naming the line, for one that no model can read.

    JSON can hold half of a character ("\\ud800" without its other half), which has no form in UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{place}: {what} holds {text[error.start]!r}, which is half of a character") from error
    return text
