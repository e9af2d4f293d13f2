"""Reads training data of any kind: a BEIR folder, a folder with a file for each split, or one file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from winnow_client.cli.reading.records import Refusal, Row
from winnow_client.cli.reading.sources import Format, format_of, read_rows
from winnow_lab.data.beir import is_judged_set
from winnow_lab.data.beir import splits_of as judged_splits
from winnow_lab.data.examples import Data, Group, Groups, Kind, ScoredPairs, Triplet, Triplets
from winnow_lab.data.judged import read_judged_set
from winnow_lab.data.parsing import (
    COLUMNS,
    ScoreRange,
    check_columns,
    group,
    kind_by_columns,
    scored_pair,
    triplet,
)
from winnow_rpc.faults import InvalidArgument, NotFound

DEV_NAMES = ("dev", "validation", "valid", "val")
"""What the split to evaluate on during training may be called, the first that is there."""

_ROW_FORMATS = (Format.JSONL, Format.CSV, Format.TSV, Format.PARQUET)


def splits_of(path: Path) -> list[str]:
    """The splits in a folder, by name; none in a file. Raises NotFound if there is nothing at the path."""
    if is_judged_set(path):
        return judged_splits(path)
    if path.is_dir():
        return sorted(_split_files(path))
    if path.is_file():
        return []
    raise NotFound(f"there is no {path}")


def read_data(
    path: Path,
    split: str = "train",
    *,
    kind: Kind | None = None,
    score_range: ScoreRange | None = None,
    skip_missing: bool = False,
) -> Data:
    """What a split of a folder, or a file (which has no splits), holds.

    `kind` is found out where it is None: a folder with a corpus is of the kind retrieval, rows are what their columns
    say. Raises InvalidArgument, naming file and line, for what is not as it must be, and for no example at all.
    """
    if is_judged_set(path):
        if kind not in (None, Kind.RETRIEVAL):
            raise InvalidArgument(
                f"{path} is a folder with a corpus, of the kind retrieval, and cannot be read as {kind}"
            )
        return read_judged_set(path, split, skip_missing=skip_missing)
    if kind is Kind.RETRIEVAL:
        raise InvalidArgument(
            f"{path} cannot be read as retrieval, which is a folder with corpus.jsonl, queries.jsonl and qrels/"
        )
    return _read_file(_file(path, split), kind, score_range or ScoreRange())


def _file(path: Path, split: str) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise NotFound(f"there is no {path}")
    files = _split_files(path)
    if split not in files:
        there = f"there are {', '.join(sorted(files))}" if files else "and no other in JSONL, CSV, TSV or Parquet"
        raise NotFound(f"{path} has no file {split}.jsonl (or .csv, .tsv, .parquet): {there}")
    return files[split]


def _split_files(folder: Path) -> dict[str, Path]:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and format_of(path) in _ROW_FORMATS:
            files[path.name.split(".", 1)[0]] = path
    return files


def _rows(path: Path) -> Iterator[Row]:
    found = format_of(path)
    if found not in _ROW_FORMATS:
        raise InvalidArgument(f"{path}: the name must end in .jsonl, .csv, .tsv (each also with .gz) or .parquet")
    for read in read_rows(path, found):
        if isinstance(read, Refusal):
            raise InvalidArgument(f"{read.place}: {read.message}")
        yield read


def _read_file(path: Path, kind: Kind | None, range_: ScoreRange) -> Data:
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise InvalidArgument(f"{path}: is empty: there is no example in it")
    kind = kind or kind_by_columns(list(first.fields))
    if kind is None:
        known = "; ".join(f"{', '.join(columns)} ({name})" for name, columns in COLUMNS.items())
        raise InvalidArgument(
            f"{first.place}: the columns {', '.join(first.fields)} are of no kind that is known, which are {known}"
        )
    checked = _checked(chain([first], rows), kind)
    match kind:
        case Kind.SCORED_PAIRS:
            return _scored_pairs(path, checked, range_)
        case Kind.GROUPS:
            return _groups(path, checked)
        case _:
            return _triplets(path, checked, kind)


def _checked(rows: Iterator[Row], kind: Kind) -> Iterator[Row]:
    for row in rows:
        check_columns(row, kind)
        yield row


def _scored_pairs(path: Path, rows: Iterator[Row], range_: ScoreRange) -> ScoredPairs:
    pairs = [scored_pair(row, range_) for row in rows]
    if len({pair.score for pair in pairs}) == 1:
        raise InvalidArgument(
            f"{path}: all {len(pairs)} pairs have the same score, so there is nothing to learn from them; pairs "
            f"that all go together are read as the columns anchor and positive"
        )
    notes = () if range_ == ScoreRange() else (f"scores from {range_} are mapped to 0:1",)
    return ScoredPairs(source=path.name, pairs=pairs, notes=notes)


def _triplets(path: Path, rows: Iterator[Row], kind: Kind) -> Triplets:
    triplets: list[Triplet] = []
    for row in rows:
        made = triplet(row, kind)
        if triplets and len(made.negatives) != len(triplets[0].negatives):
            raise InvalidArgument(
                f"{row.place}: has {len(made.negatives)} negatives, the first row {len(triplets[0].negatives)}"
            )
        triplets.append(made)
    return Triplets(source=path.name, triplets=triplets)


def _groups(path: Path, rows: Iterator[Row]) -> Groups:
    groups: list[Group] = []
    idle = 0
    for row in rows:
        made = group(row)
        if made.orders:
            groups.append(made)
        else:
            idle += 1
    if not groups:
        raise InvalidArgument(
            f"{path}: in each of its {idle} groups all labels are the same, so there is no order to learn"
        )
    notes = (f"{idle:,} groups have one label only and are left out",) if idle else ()
    return Groups(source=path.name, groups=groups, notes=notes)
