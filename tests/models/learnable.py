"""Training data that a tiny model learns in a few steps, and tiny models to learn it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.models.tiny import build_bi_encoder
from winnow_lab.data.examples import Group, ScoredPair, Triplet

_GOOD = ["bread", "cheese", "bread cheese", "cheese bread"]
_BAD = ["sea", "river", "sea river", "river sea"]
_REST = ["red", "green", "blue", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def groups(count: int, *, documents: int = 4, seed: int = 0) -> list[Group]:
    """Groups in which the answer names what is asked for and speaks of bread or cheese; no text comes twice."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        asked, *others = draw.sample(_REST, documents)
        # Two letters, so that no text is like another.
        mark = chr(97 + number // 26 % 26) + chr(97 + number % 26)
        texts = [f"{asked} {draw.choice(_GOOD)} {mark}", *(f"{word} {draw.choice(_BAD)} {mark}" for word in others)]
        made.append(Group(f"what is {asked} {mark}", tuple(texts), (1.0,) + (0.0,) * (documents - 1)))
    return made


def triplets(count: int, *, seed: int = 0) -> list[Triplet]:
    """The same as triplets with one negative."""
    return [Triplet(group.query, group.documents[0], group.documents[1:2]) for group in groups(count, seed=seed)]


def scored_pairs(count: int, *, seed: int = 0) -> list[ScoredPair]:
    """The same as pairs with a score."""
    return [
        ScoredPair(group.query, group.documents[at], group.labels[at])
        for at, group in zip([0, 1] * count, groups(count, documents=2, seed=seed), strict=False)
    ]


def model_without_dropout(folder: Path, *, seed: int = 0) -> Path:
    """A tiny model whose training has nothing random but the order of examples (and a new head, which is small)."""
    build_bi_encoder(folder, seed=seed)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_judged_set(folder: Path, *, queries: int = 24, splits: tuple[str, ...] = ("train", "dev")) -> Path:
    """A small folder in the BEIR layout, a part of the queries in each split."""
    made = groups(queries)
    texts = [(f"d{n}-{at}", text) for n, group in enumerate(made) for at, text in enumerate(group.documents)]
    (folder / "qrels").mkdir(parents=True)
    _write(folder / "corpus.jsonl", [{"_id": id_, "title": "", "text": text} for id_, text in texts])
    _write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": group.query} for n, group in enumerate(made)])
    for part, split in enumerate(splits):
        lines = [f"q{n}\td{n}-0\t1\n" for n in range(part, queries, len(splits))]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder


def write_groups(path: Path, made: list[Group]) -> Path:
    """A file of groups."""
    _write(path, [{"query": each.query, "documents": each.documents, "labels": each.labels} for each in made])
    return path


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
