"""Every link of the Markdown files leads somewhere, and every page of docs/ is linked from another one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def pages() -> list[Path]:
    """The Markdown files that git tracks or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for line in listed.stdout.splitlines() if (path := ROOT / line).exists())


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files within the repository that a page links, each with an anchor or nothing."""
    for target in _LINK.findall(_CODE.sub("`", _FENCE.sub("", page.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        yield ((page.parent / path).resolve() if path else page), anchor


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: list[str] = []
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        seen.append(f"{slug}-{seen.count(slug)}" if slug in seen else slug)
    return frozenset(seen)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for path, anchor in links(page):
        assert path.exists(), f"{name(page)} links {path}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{name(page)} links #{anchor} of {name(path)}, which has no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page.exists() and page not in reached:
            reached.add(page)
            waiting += [path for path, _ in links(page)]
    lost = [name(page) for page in pages() if page not in reached]
    assert not lost, f"nobody who starts at the README finds {lost}"
