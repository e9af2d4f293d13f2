"""Plain text and Markdown: one document a file."""

from __future__ import annotations

import re
from pathlib import Path

from winnow_client.cli.reading.lines import BYTE_ORDER_MARK, not_utf8
from winnow_client.cli.reading.records import MAX_RECORD_BYTES, Item, Place, Refusal
from winnow_client.documents import Document

_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
MAX_TITLE_BYTES = 4096


def read_text(path: Path, *, id: str, markdown: bool) -> Item | Refusal:
    """A file as a document: its title is the first Markdown heading, else the file's name."""
    place = Place(str(path))
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return Refusal(place, "RECORD_TOO_LARGE", f"the file is larger than {MAX_RECORD_BYTES} bytes", id)
        content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        return Refusal(place, "CANNOT_READ", f"cannot be read: {error.strerror}", id)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Refusal(Place(str(path), line), "NOT_UTF8", not_utf8(error), id)
    title = (first_heading(text) if markdown else None) or path.name
    return Item(place, Document(id=id, title=title, text=text))


def first_heading(text: str) -> str | None:
    """The first heading of a Markdown text, outside code blocks and front matter; None if there is none."""
    lines = text.splitlines()
    if lines and lines[0].rstrip() == "---" and "---" in (line.rstrip() for line in lines[1:]):
        # Front matter is no heading, though its last line underlines the one before.
        del lines[: 2 + [line.rstrip() for line in lines[1:]].index("---")]
    fence = ""
    before = ""
    for line in lines:
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if mark:
            fence, before = mark[1], ""
            continue
        heading = _HEADING.fullmatch(line)
        if heading and heading[1].strip():
            return _fitting(heading[1].strip())
        if before and _UNDERLINE.fullmatch(line):
            return _fitting(before)
        # A line of four spaces is code, a list or a quotation is no heading.
        before = "" if re.match(r" {4}|\t| {0,3}([-*+>]|\d+[.)])(\s|$)", line) else line.strip()
    return None


def _fitting(title: str) -> str:
    return title.encode()[:MAX_TITLE_BYTES].decode(errors="ignore")
