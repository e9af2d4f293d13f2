"""Where the shipped cross-encoder's training pairs come from: each source is a small retrieval set of its own.

Every source says what a query is and which passage answers it; the other passages of the same source are where its
negatives are looked for. Licences of the texts are in the model's card.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import lzma
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from winnow_lab.data.beir import read_documents, read_queries
from winnow_rpc.faults import NotFound


@dataclass(slots=True)
class Source:
    """Queries, passages, and which of the passages answer each query."""

    name: str
    passages: list[str] = field(default_factory=list)
    """Title, line break, text: what the reranker is given when it serves."""
    queries: list[str] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    """Positions of the passages that answer each query."""
    shown: dict[int, str] = field(default_factory=dict)
    """Query's position → its answer as it is shown in training, where that is not the passage itself."""

    def add(self, query: str, answers: list[int], *, shown: str | None = None) -> None:
        """One more query."""
        if shown is not None:
            self.shown[len(self.queries)] = shown
        self.queries.append(query)
        self.answers.append(answers)

    def narrowed(self, count: int, draw: random.Random) -> Source:
        """Over so many of the passages alone: the queries that these answer. Embedding a passage is what costs time."""
        if count >= len(self.passages):
            return self
        kept = sorted(draw.sample(range(len(self.passages)), count))
        position = {old: new for new, old in enumerate(kept)}
        made = Source(self.name, [self.passages[old] for old in kept])
        for at, query in enumerate(self.queries):
            answers = [position[old] for old in self.answers[at] if old in position]
            if answers:
                made.add(query, answers, shown=self.shown.get(at))
        return made

    def sampled(self, count: int, draw: random.Random) -> Source:
        """So many of the queries, over all passages."""
        kept = sorted(draw.sample(range(len(self.queries)), min(count, len(self.queries))))
        made = Source(self.name, self.passages)
        for at in kept:
            made.add(self.queries[at], self.answers[at], shown=self.shown.get(at))
        return made


def judged(folder: Path, *, split: str = "train", prefix: str = "") -> Source:
    """A set in the BEIR layout: its judged queries, and the passages whose id begins with `prefix`."""
    documents = [document for document in read_documents(folder) if document.id.startswith(prefix)]
    position = {document.id: at for at, document in enumerate(documents)}
    source = Source(folder.name, [f"{each.title}\n{each.text}" if each.title else each.text for each in documents])
    for query in read_queries(folder, split):
        answers = [position[id_] for id_, score in query.judgements.items() if score > 0 and id_ in position]
        if answers:
            source.add(query.text, answers)
    return source


def paraphrases(path: Path, *, least: float = 4.0) -> Source:
    """STS pairs (CSV: sentence1, sentence2, score 0 to 5): of those that mean nearly the same, one finds the other."""
    source = Source("paraphrases")
    position: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["sentence1"], row["sentence2"], float(row["score"])) for row in csv.DictReader(file)]
    for one, other, _ in rows:
        for text in (one, other):
            if text not in position:
                position[text] = len(source.passages)
                source.passages.append(text)
    for one, other, score in rows:
        if score >= least and one != other:
            # A sentence is not its own negative.
            source.add(one, [position[other], position[one]], shown=other)
    return source


def sentences(folder: Path, *, prefix: str, draw: random.Random) -> Source:
    """A sentence and the passage that it was taken from, which no longer holds it (inverse cloze, arXiv:1906.00300)."""
    source = Source("sentences")
    for document in read_documents(folder):
        if not document.id.startswith(prefix):
            continue
        parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", document.text)
        at = len(source.passages)
        source.passages.append(document.text)
        if len(parts) >= 3:
            taken = draw.randrange(len(parts))
            if 6 <= len(parts[taken].split()) <= 40:
                rest = " ".join(part for number, part in enumerate(parts) if number != taken)
                source.add(parts[taken].rstrip("."), [at], shown=rest)
    return source


def packages(path: Path) -> Source:
    """What a Debian package is, in one line, and its description: a `Translation-en` file, xz or plain."""
    source = Source("packages")
    seen: set[str] = set()
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode()
    for record in text.split("\n\n"):
        found = re.search(r"^Description-en: (.+)\n((?: .*\n?)+)", record, re.MULTILINE)
        if not found:
            continue
        line, body = found[1].strip(), re.sub(r"\n \.?|^ ", "\n", found[2]).strip()
        # Packages of one program share their description; its first line tells them apart only in brackets.
        key = body[:120]
        if key in seen or len(body) < 120 or len(line.split()) < 3 or "dummy" in line or "transitional" in line:
            continue
        seen.add(key)
        source.add(line, [len(source.passages)])
        source.passages.append(re.sub(r"\s*\n\s*", " ", body))
    return source


def answered_questions(folder: Path) -> Source:
    """MedQuAD (github.com/abachaa/MedQuAD): questions on diseases and their answers, in XML files below a folder."""
    source = Source("medquad")
    for path in sorted(folder.rglob("*.xml")):
        # A collection that its user fetched by name, not what a stranger sends.
        for pair in ElementTree.parse(path).getroot().iter("QAPair"):  # noqa: S314
            question, answer = (" ".join((pair.findtext(tag) or "").split()) for tag in ("Question", "Answer"))
            if question and len(answer) > 60:
                source.add(question.replace(" ?", "?"), [len(source.passages)])
                source.passages.append(answer[:2000])
    return source


def documented_functions(names: tuple[str, ...] = ("", "numpy", "scipy", "sklearn")) -> Source:
    """The first sentence of a docstring and the function without it, of installed packages; "": Python's library."""
    source = Source("functions")
    for name in names:
        for path in _python_files(name):
            try:
                code = path.read_text(encoding="utf-8")
                tree = ast.parse(code)
            except (SyntaxError, UnicodeDecodeError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    _add_function(source, node)
    return source


def _python_files(name: str) -> Iterator[Path]:
    if not name:
        root = Path(sysconfig.get_path("stdlib"))
    else:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise NotFound(f"package {name} is not installed")
        root = Path(next(iter(found.submodule_search_locations)))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
            yield path


def _add_function(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    documentation = ast.get_docstring(node)
    if not documentation:
        return
    first = re.split(r"(?<=[.!?])\s|\n\n", " ".join(documentation.split("\n\n")[0].split()))[0]
    body = node.body[1:]
    if not body or not 5 <= len(first.split()) <= 30:
        return
    node.body = body
    code = ast.unparse(node)
    if len(code) > 120:
        source.add(first.rstrip("."), [len(source.passages)])
        source.passages.append(code[:1500])
