"""The documentation of the Python standard library as documents, gathered from the interpreter that runs this.

The docstrings are read in a process of their own (`stdlib_corpus_gather`); here they become documents: cleaned, without
boilerplate, each with a link to its place in Python's documentation, in an order that is always the same.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

from winnow_client.cli.stdlib_corpus_links import link
from winnow_client.documents import Document
from winnow_rpc.faults import Unavailable

_GATHER = Path(__file__).with_name("stdlib_corpus_gather.py")

# Docstrings that tools have made: namedtuple, enum, ctypes, dataclass ("Name(a: int, b: str)").
_BOILERPLATE = re.compile(
    r"Alias for field number \d+|An enumeration\.|Structure/Union member|\*\*DEPRECATED\*\*"
    r"|Deprecated AST node class\b.*|Deprecated\. Use value instead\.|[A-Za-z_]\w*\(.*\)"
)
_FEWEST_WORDS = 3

Progress = Callable[[int, int], None]


def stdlib_documents(progress: Progress = lambda done, total: None) -> list[Document]:
    """The documentation of this interpreter's standard library: several thousand documents, by id.

    `progress` is called with the number of modules read and of all. Takes about two seconds. Raises Unavailable if the
    interpreter's library cannot be read.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return documents(_records(progress), version=version)


def documents(records: Iterable[Mapping[str, str]], *, version: str) -> list[Document]:
    """Documents made of records, as `stdlib_corpus_gather` writes them, for one version of Python ("3.11")."""
    made = {}
    for record in records:
        docstring = clean(record["docstring"])
        if is_boilerplate(docstring):
            continue
        name, kind = record["name"], record["kind"]
        title = name.removeprefix("builtins.")
        signature = f"{title}{record['signature']}" if record["signature"] else ""
        # Compiled functions often begin their docstring with their parameters; twice is once too many.
        text = docstring if docstring.startswith(signature) else f"{signature}\n\n{docstring}"
        made[name] = Document(
            id=f"py:{name}",
            title=title,
            text=text,
            metadata={
                "module": record["module"],
                "kind": kind,
                "link": link(name, module=record["module"], kind=kind, origin=record["origin"], version=version),
            },
        )
    return [made[name] for name in sorted(made)]


def clean(docstring: str) -> str:
    """The docstring without its indentation, and without what cannot be encoded."""
    cleaned = inspect.cleandoc(docstring).strip()
    return cleaned.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "")


def is_boilerplate(docstring: str) -> bool:
    """Whether a cleaned docstring tells nothing that its name does not tell."""
    return len(docstring.split()) < _FEWEST_WORDS or _BOILERPLATE.fullmatch(docstring) is not None


def _records(progress: Progress) -> list[dict[str, str]]:
    # The order of sets shows in some signatures; and no setting of the caller's should strip docstrings or add modules.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(
        [sys.executable, "-P", "-s", "-S", str(_GATHER)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environment, "PYTHONHASHSEED": "0"},
        encoding="ascii",
    ) as gathering:
        assert gathering.stdout is not None
        try:
            records = _read(gathering.stdout, progress)
        except BaseException:
            gathering.kill()
            raise
    if gathering.returncode != 0:
        raise Unavailable(f"the standard library cannot be read: its reader ended with status {gathering.returncode}")
    return records


def _read(lines: IO[str], progress: Progress) -> list[dict[str, str]]:
    records: list[dict[str, str]] = []
    for line in lines:
        match json.loads(line):
            case {"progress": [int(done), int(total)]}:
                progress(done, total)
            case {"record": dict(record)}:
                records.append(record)
            case {"error": error}:
                raise Unavailable(f"the standard library cannot be read: {error}")
    return records
