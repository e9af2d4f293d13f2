"""Sets of scored pairs, as STS: how well the models' scores agree with a person's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress
from rich.table import Table

from winnow_client.cli.output import plain, table
from winnow_lab.data.examples import Kind, ScoredPair, ScoredPairs
from winnow_lab.data.parsing import ScoreRange
from winnow_lab.data.reading import read_data
from winnow_lab.evaluating.in_process import InProcess
from winnow_lab.evaluating.keeping import new_folder
from winnow_lab.evaluating.tables import bounds
from winnow_lab.writing import written
from winnow_relevance import Estimate, correlation_interval, pearson, spearman

BI_ENCODER, CROSS_ENCODER = "bi-encoder", "cross-encoder"


class _AsTheyAre(ScoreRange):
    """What scores run from and to means nothing to a correlation."""

    def unit(self, score: float) -> float:
        """The score itself."""
        return score


@dataclass(frozen=True, slots=True)
class SimilarityReport:
    """Correlations on one set."""

    name: str
    pair_count: int
    made: Mapping[str, str]
    """How, and by what models."""
    pearson: Mapping[str, Estimate]
    """Model → correlation and its bounds."""
    spearman: Mapping[str, Estimate]


def read_pairs(path: Path, split: str) -> Sequence[ScoredPair]:
    """Scored pairs of a file, or of the file of a split in a folder, with their scores as they stand.

    Raises the faults of `read_data`.
    """
    read = read_data(path, split, kind=Kind.SCORED_PAIRS, score_range=_AsTheyAre())
    assert isinstance(read, ScoredPairs)
    return read.pairs


async def correlate(
    models: InProcess, name: str, pairs: Sequence[ScoredPair], progress: Progress
) -> tuple[SimilarityReport, list[dict[str, object]]]:
    """The report, and a record of each pair."""
    firsts, seconds = [pair.sentence1 for pair in pairs], [pair.sentence2 for pair in pairs]
    task = progress.add_task(f"score {name}", total=3)
    one = await models.embed(firsts, query=False)
    progress.advance(task)
    other = await models.embed(seconds, query=False)
    progress.advance(task)
    crossed = await models.score(firsts, seconds)
    progress.advance(task)
    given = [pair.score for pair in pairs]
    found = {BI_ENCODER: paired_similarities(one, other, models.bi.facts.similarity), CROSS_ENCODER: crossed}
    report = SimilarityReport(
        name=name,
        pair_count=len(pairs),
        made=models.description,
        pearson={model: correlation_interval(pearson(scores, given), len(pairs)) for model, scores in found.items()},
        spearman={model: correlation_interval(spearman(scores, given), len(pairs)) for model, scores in found.items()},
    )
    records: list[dict[str, object]] = [
        {"score": score, BI_ENCODER: float(found[BI_ENCODER][at]), CROSS_ENCODER: float(crossed[at])}
        for at, score in enumerate(given)
    ]
    return report, records


def name_of(path: Path, split: str) -> str:
    """What a report calls the pairs of a file, or of a split of a folder."""
    return f"{path.absolute().parent.name}-{path.name.split('.', 1)[0]}" if path.is_file() else f"{path.name}-{split}"


def paired_similarities(first: np.ndarray, second: np.ndarray, similarity: str) -> Sequence[float]:
    """How near each vector is to the one of the same row, higher is nearer; by the bi-encoder's own measure."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    if similarity in ("cosine", "dot"):
        products = (one * other).sum(axis=1)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1) if similarity == "cosine" else 1.0
        near = products / np.maximum(lengths, np.finfo(np.float64).tiny)
    else:
        near = -np.linalg.norm(one - other, axis=1, ord=1 if similarity == "manhattan" else 2)
    values: list[float] = near.tolist()
    return values


def show(report: SimilarityReport) -> Table:
    """The report for a person."""
    columns = ("Pearson", "its 95%", "Spearman", "95%")
    made = table("model", *columns, right=columns)
    made.title = f"{report.name}: {report.pair_count:,} pairs"
    for model, first in report.pearson.items():
        second = report.spearman[model]
        made.add_row(model, f"{first.mean:.3f}", bounds(first), f"{second.mean:.3f}", bounds(second))
    return made


def keep(out: Path, report: SimilarityReport, records: Sequence[Mapping[str, object]]) -> Path:
    """Keeps the report and a line for each pair in a folder of its own, and says which."""
    folder = new_folder(out, report.name)
    with written(folder):
        (folder / "report.json").write_text(json.dumps(plain(report), indent=2) + "\n", encoding="utf-8")
        (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder
