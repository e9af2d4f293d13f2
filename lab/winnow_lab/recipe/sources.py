"""Where the shipped cross-encoder's training groups come from: each source is a small judged set of its own.

Every source says what a query is and which passage answers it; the other passages of the same source are where its
negatives are looked for. Licences of the texts are in the model's card.
"""

from __future__ import annotations

import ast
import importlib.util
import lzma
import random
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from winnow_lab.data.beir import JudgedQuery
from winnow_lab.data.examples import JudgedSet, ScoredPair
from winnow_rpc.faults import NotFound


@dataclass(frozen=True, slots=True)
class Source:
    """A judged set to train on."""

    judged: JudgedSet
    shown: dict[str, str] = field(default_factory=dict)
    """Query's id → its answer as it is shown in training, where that is not a document itself."""
    untitled: float = 0.0
    """Share of the queries whose passages are shown without their titles."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.judged.source

    def narrowed(self, draw: random.Random, *, documents: int = 0, queries: int = 0) -> Source:
        """Over so many of the documents, with so many of the queries that these answer; 0: all.

        Embedding a document is most of what mining costs.
        """
        ids = list(self.judged.documents)
        kept = set(ids if not documents or documents >= len(ids) else draw.sample(ids, documents))
        asked = [query for query in self.judged.queries if query.judgements.keys() <= kept]
        if queries and queries < len(asked):
            asked = [asked[at] for at in sorted(draw.sample(range(len(asked)), queries))]
        documents_kept = {id_: text for id_, text in self.judged.documents.items() if id_ in kept}
        judged = JudgedSet(source=self.name, documents=documents_kept, queries=asked)
        return replace(self, judged=judged)


class _Collector:
    """Gathers a source, text by text."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._documents: dict[str, str] = {}
        self._queries: list[JudgedQuery] = []
        self._shown: dict[str, str] = {}

    def document(self, text: str) -> str:
        """Adds a document; its id."""
        id_ = str(len(self._documents))
        self._documents[id_] = text
        return id_

    def query(self, text: str, answers: Sequence[str], *, shown: str | None = None) -> None:
        """Adds a query that these documents answer."""
        id_ = f"q{len(self._queries)}"
        self._queries.append(JudgedQuery(id_, text, dict.fromkeys(answers, 1.0)))
        if shown is not None:
            self._shown[id_] = shown

    def done(self) -> Source:
        """The source."""
        return Source(JudgedSet(source=self._name, documents=self._documents, queries=self._queries), self._shown)


def paraphrases(pairs: Sequence[ScoredPair], *, least: float = 0.8) -> Source:
    """Of sentences that mean nearly the same, one finds the other (scores from 0 to 1, as read)."""
    made = _Collector("paraphrases")
    ids: dict[str, str] = {}
    for pair in pairs:
        for text in (pair.sentence1, pair.sentence2):
            if text not in ids:
                ids[text] = made.document(text)
    for pair in pairs:
        if pair.score >= least and pair.sentence1 != pair.sentence2:
            # It is judged beside the other one, for a sentence is not its own negative.
            answers = [ids[pair.sentence2], ids[pair.sentence1]]
            made.query(pair.sentence1, answers, shown=pair.sentence2)
    return made.done()


def sentences(judged: JudgedSet, draw: random.Random) -> Source:
    """A sentence and the passage that it was taken from, which no longer holds it (inverse cloze, arXiv:1906.00300)."""
    made = _Collector("sentences")
    for passage in judged.documents.values():
        text = passage.split("\n", 1)[-1]
        parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
        id_ = made.document(text)
        if len(parts) >= 3:
            taken = draw.randrange(len(parts))
            if 6 <= len(parts[taken].split()) <= 40:
                rest = " ".join(part for number, part in enumerate(parts) if number != taken)
                made.query(parts[taken].rstrip("."), [id_], shown=rest)
    return made.done()


def packages(path: Path) -> Source:
    """What a Debian package is, in one line, and its description: a `Translation-en` file, xz or plain."""
    made = _Collector("packages")
    seen: set[str] = set()
    data = path.read_bytes()
    for record in (lzma.decompress(data) if path.suffix == ".xz" else data).decode().split("\n\n"):
        found = re.search(r"^Description-en: (.+)\n((?: .*\n?)+)", record, re.MULTILINE)
        if not found:
            continue
        line, body = found[1].strip(), re.sub(r"\n \.?|^ ", "\n", found[2]).strip()
        # Packages of one program share their description; the line alone tells them apart, in brackets.
        key = body[:120]
        if key in seen or len(body) < 120 or len(line.split()) < 3 or "dummy" in line or "transitional" in line:
            continue
        seen.add(key)
        made.query(line, [made.document(re.sub(r"\s*\n\s*", " ", body))])
    return made.done()


def medical_questions(folder: Path) -> Source:
    """MedQuAD (github.com/abachaa/MedQuAD): questions on diseases and their answers, in XML files below a folder."""
    made = _Collector("medical questions")
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise NotFound(f"{folder} holds no XML file: it should be a copy of github.com/abachaa/MedQuAD")
    for path in files:
        # A collection that its user fetched by name, not what a stranger sends.
        for pair in ElementTree.parse(path).getroot().iter("QAPair"):  # noqa: S314
            question, answer = (" ".join((pair.findtext(tag) or "").split()) for tag in ("Question", "Answer"))
            if question and len(answer) > 60:
                made.query(question.replace(" ?", "?"), [made.document(answer[:2000])])
    return made.done()


def functions(names: Sequence[str] = ("", "numpy", "scipy", "sklearn")) -> Source:
    """The first sentence of a docstring and the function without it, of installed packages; "": Python's library."""
    made = _Collector("functions")
    for name in names:
        for path in _python_files(name):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    _add_function(made, node)
    return made.done()


def _python_files(name: str) -> Iterator[Path]:
    if not name:
        root = Path(sysconfig.get_path("stdlib"))
    else:
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise NotFound(f"package {name} is not installed")
        root = Path(next(iter(found.submodule_search_locations)))
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(root).parts):
            yield path


def _add_function(made: _Collector, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
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
        made.query(first.rstrip("."), [made.document(code[:1500])])
