"""From sources to the groups that the shipped cross-encoder learns from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from winnow_inference.models.weights import sha256_of
from winnow_lab.data.converting import groups_of
from winnow_lab.data.examples import Group, JudgedSet, ScoredPairs
from winnow_lab.data.parsing import ScoreRange
from winnow_lab.data.reading import read_data
from winnow_lab.hashing import hash_of
from winnow_lab.recipe import sources
from winnow_lab.recipe.sources import Source
from winnow_lab.training.mining import MiningSettings
from winnow_lab.training.negatives import Embed, find_negatives
from winnow_lab.training.starting import weights_hash
from winnow_rpc.faults import InvalidArgument, NotFound

MINING = MiningSettings(count=5)
"""Five negatives a query: what a group costs is its passages."""

_DATA: tuple[str, ...] = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
# All passages of an article share its title, and texts of others have none: half the time it is left out.
_SQUAD_UNTITLED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where the texts are."""

    data: Path
    """Holds squad/ and travel-dup/ in the BEIR layout, and stsb/train.csv."""
    packages: Path | None = None
    """Debian's `Translation-en`, xz or plain."""
    medical: Path | None = None
    """A copy of github.com/abachaa/MedQuAD."""

    def files(self) -> Iterator[tuple[str, Path]]:
        """What is read, and what like it lies beside, each with a name that is the same wherever the folders are.

        Raises NotFound for a folder without any.
        """
        places = [(name, self.data / name, _DATA) for name in ("squad", "travel-dup", "stsb")]
        if self.medical:
            places.append(("medical", self.medical, (".xml",)))
        for name, folder, suffixes in places:
            found = sorted(path for path in folder.rglob("*") if path.name.endswith(suffixes))
            if not found:
                raise NotFound(f"{folder}, which the recipe learns from, has no files {', '.join(suffixes)}")
            yield from ((f"{name}/{path.relative_to(folder).as_posix()}", path) for path in found)
        if self.packages:
            yield "packages", self.packages


def groups_file(folders: Folders, miner: Path, *, share: float, seed: int) -> str:
    """What the file of the groups is called: by what they are made from, the texts by their content.

    Only installed packages, whose functions are learned from too, do not count: a training goes on after an upgrade.
    """
    files = ([name, sha256_of(path)] for name, path in folders.files())
    digest = hash_of(chain([asdict(MINING), weights_hash(miner)], files))
    also = [name for name, path in (("packages", folders.packages), ("medical", folders.medical)) if path]
    return "-".join(["groups", f"{share:g}", f"{seed}", *also, digest[:12]]) + ".jsonl.gz"


def gather(folders: Folders, *, share: float, draw: random.Random) -> list[Source]:
    """The sources, each with the share of its queries that is asked for."""

    def some(count: int) -> int:
        return max(1, round(share * count))

    squad = _judged(folders.data / "squad")
    articles = {id_: text for id_, text in squad.documents.items() if id_.startswith("train-")}
    squad = JudgedSet(source="squad", documents=articles, queries=squad.queries)
    pairs = read_data(folders.data / "stsb", "train", score_range=ScoreRange(0, 5))
    if not isinstance(pairs, ScoredPairs):
        raise InvalidArgument(f"{pairs.source} is no set of scored pairs")
    found = [
        Source(squad, untitled=_SQUAD_UNTITLED).narrowed(draw, queries=some(30_000)),
        Source(_judged(folders.data / "travel-dup")).narrowed(draw, queries=some(2_000)),
        sources.paraphrases(pairs.pairs).narrowed(draw, queries=some(2_000)),
        sources.sentences(squad, draw).narrowed(draw, documents=6_000, queries=some(2_000)),
        sources.functions().narrowed(draw, documents=6_000, queries=some(2_500)),
    ]
    if folders.packages:
        found.append(sources.packages(folders.packages).narrowed(draw, documents=9_000, queries=some(3_500)))
    if folders.medical:
        found.append(sources.medical_questions(folders.medical).narrowed(draw, documents=6_000, queries=some(3_000)))
    return found


def make_groups(found: list[Source], embed: Embed, *, seed: int, say: Callable[[str], None]) -> list[Group]:
    """One group a query: its answers and its negatives. All sources shuffled into one order."""
    draw = random.Random(seed)
    groups: list[Group] = []
    for source in found:
        say(f"negatives of {len(source.judged.queries):,} queries in {len(source.judged.documents):,} {source.name}")
        groups.extend(_groups(source, embed, seed=seed, draw=draw))
    draw.shuffle(groups)
    return groups


def _groups(source: Source, embed: Embed, *, seed: int, draw: random.Random) -> Iterator[Group]:
    judged = source.judged
    negatives = find_negatives(judged, embed, MINING, seed=seed)
    for query in judged.queries:
        one = JudgedSet(source=judged.source, documents=judged.documents, queries=[query])
        for group in groups_of(one, negatives):
            yield _as_shown(group, source.shown.get(query.id), untitled=draw.random() < source.untitled)


def _as_shown(group: Group, answer: str | None, *, untitled: bool) -> Group:
    documents, labels = group.documents, group.labels
    if answer is not None:
        bad = [text for text, label in zip(documents, labels, strict=True) if label <= 0 and text != answer]
        documents, labels = (answer, *bad), (1.0, *(0.0 for _ in bad))
    if untitled:
        documents = tuple(text.split("\n", 1)[-1] for text in documents)
    return Group(group.query, documents, labels)


def _judged(folder: Path) -> JudgedSet:
    data = read_data(folder, "train")
    if not isinstance(data, JudgedSet):
        raise InvalidArgument(f"{folder} is no judged set")
    return data
