"""docs/errors.md lists the reasons that the code gives: none is missing, none is invented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from winnow_rpc import faults
from winnow_rpc.status import CODES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)`", PAGE))
# Of the index only what stops it at its start reaches a person: the gateway is its one caller.
FOLDERS = ("packages/rpc", "packages/inference", "packages/client/winnow_client", "services/gateway")
MODEL_SERVICES = ("services/embedder", "services/reranker")
NO_REASONS = {"WINNOW_DEBUG", "SEARCH_MODE_LEXICAL"}


def trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "cli" not in path.parts:
                yield ast.parse(path.read_text(encoding="utf-8"))


def given(tree: ast.Module) -> Iterator[str]:
    """The reasons that are written where a fault is made, or handed to what makes one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                    yield keyword.value.value


def test_every_reason_in_the_code_is_on_the_page() -> None:
    found = {reason for tree in trees(*FOLDERS, *MODEL_SERVICES) for reason in given(tree)}
    missing = {reason for reason in found if re.fullmatch(r"[A-Z][A-Z0-9_]+", reason)} - NAMED
    assert not missing, f"docs/errors.md says nothing of {sorted(missing)}"


def test_every_reason_on_the_page_is_in_the_code() -> None:
    sources = (
        path.read_text(encoding="utf-8") for part in ("packages", "services") for path in (ROOT / part).rglob("*.py")
    )
    written = {text for source in sources for text in re.findall(r"[\"}]([A-Z_][A-Z0-9_]+)\"", source)}
    # Those of a backend are its name and one of these.
    made = {f"{backend}{end}" for backend in ("EMBEDDER", "RERANKER", "INDEX") for end in written if end[:1] == "_"}
    invented = NAMED - written - made - NO_REASONS
    assert not invented, f"no code gives {sorted(invented)}"


def test_every_code_has_its_row_and_its_fault() -> None:
    for kind, code in CODES.items():
        assert f"| {code.name} | `{kind.__name__}` |" in PAGE
        assert issubclass(kind, faults.Fault)
