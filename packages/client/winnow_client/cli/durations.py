"""Durations on the command line."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)")


class DurationType(click.ParamType[float]):
    """A time as "200ms", "1.5s", "2m", or seconds without a unit; in seconds, above 0."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        matched = _DURATION.fullmatch(str(value).strip().lower())
        if matched is None or matched[2] not in _UNITS:
            self.fail(f"{value!r} is no time: write it as 200ms, 1.5s or 2m.", param, ctx)
        seconds = float(matched[1]) * _UNITS[matched[2]]
        if seconds <= 0:
            self.fail(f"{value!r} is no time at all: it must be above 0.", param, ctx)
        return seconds
