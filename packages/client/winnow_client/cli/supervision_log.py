"""One log out of many: reads what services write, writes it for people or for machines. Pure.

A service writes JSON objects, one a line; anything else that comes out of it (a traceback, a native library's chatter)
is a line of text, and becomes an entry with the event `output`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

SUPERVISOR = "winnow"
"""The name under which the supervisor itself writes."""
OUTPUT = "output"
"""The event of a line that was not a JSON object; its text is the fact `line`."""

_WIDTH = 8  # of the longest name of a service
_COLOURS = {"gateway": "cyan", "embedder": "green", "reranker": "magenta", "index": "blue", SUPERVISOR: "white"}
_LEVEL_COLOURS = {"warning": "yellow", "error": "red", "critical": "red"}
# Said by the line's form already, or by its prefix.
_FRAME = frozenset({"event", "level", "timestamp", "service", "logger"})


@dataclass(frozen=True)
class Entry:
    """One line of the log."""

    service: str
    """Who wrote it: a service's short name, or SUPERVISOR."""
    event: str
    """What happened: "listening"."""
    level: str = "info"
    """debug, info, warning or error."""
    timestamp: str = ""
    """When, as ISO 8601 in UTC."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it."""

    @property
    def text(self) -> str:
        """The event and its facts on one line, without colour."""
        if self.event == OUTPUT:
            return str(self.facts.get("line", ""))
        facts = " ".join(f"{key}={_value(value)}" for key, value in self.facts.items() if not _is_block(value))
        return f"{self.event} {facts}".rstrip()


def parse_line(service: str, line: str, *, now: datetime) -> Entry:
    """The entry that a line of a service stands for. Never fails: what is not a log event is output."""
    stamp = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    try:
        read = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict) or not isinstance(read.get("event"), str):
        return Entry(service, OUTPUT, timestamp=stamp, facts={"line": line.rstrip()})
    return Entry(
        service,
        read["event"],
        level=str(read.get("level", "info")),
        timestamp=str(read.get("timestamp") or stamp),
        facts={key: value for key, value in read.items() if key not in _FRAME},
    )


def as_json(entry: Entry) -> str:
    """The entry as one line of JSON, in the form that the services write."""
    frame = {"event": entry.event, "level": entry.level, "timestamp": entry.timestamp, "service": entry.service}
    return json.dumps({**entry.facts, **frame}, ensure_ascii=False, default=str)


def for_people(entry: Entry, *, colour: bool) -> str:
    """The entry as one readable line, or more where it carries a traceback: time, service, event, facts."""

    def paint(text: str, **how: Any) -> str:
        return click.style(text, **how) if colour and text else text

    prefix = f"{paint(entry.service.ljust(_WIDTH), fg=_COLOURS.get(entry.service))} {paint('│', dim=True)} "
    clock = paint(_clock(entry.timestamp), dim=True)
    if entry.event == OUTPUT:
        return f"{clock} {prefix}{entry.facts.get('line', '')}"
    level_colour = _LEVEL_COLOURS.get(entry.level)
    if entry.service == SUPERVISOR and "message" in entry.facts:
        # Its messages are whole sentences; the event and the other facts are for machines.
        event, facts = paint(str(entry.facts["message"]), fg=level_colour, bold=True), ""
    else:
        event = paint(entry.event, fg=level_colour, bold=True)
        facts = " ".join(
            f"{paint(key + '=', dim=True)}{_value(value)}" for key, value in entry.facts.items() if not _is_block(value)
        )
    level = f"{paint(entry.level.upper(), fg=level_colour)} " if level_colour else ""
    lines = [f"{clock} {prefix}{level}{event} {facts}".rstrip()]
    for key, value in entry.facts.items():
        if _is_block(value):
            block = value.splitlines() if isinstance(value, str) else [str(line) for line in value]
            lines += [f"{clock} {prefix}  {paint(key + ' │', dim=True)} {line}" for line in block]
    return "\n".join(lines)


def _is_block(value: object) -> bool:
    """A value that needs lines of its own: a traceback, or lines that a process left behind."""
    if isinstance(value, str):
        return "\n" in value
    return isinstance(value, list) and bool(value) and all(isinstance(line, str) for line in value)


def _value(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and "=" not in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _clock(timestamp: str) -> str:
    """Local time of day, to the millisecond."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    return moment.astimezone().strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
