"""How the tests run `winnow`: in this process, or as one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable

from click.testing import Result

Winnow = Callable[..., Result]
"""Runs a command against the fake gateway."""

PYTHON = [sys.executable, "-W", "error", "-m", "winnow_client.cli.main"]
