"""What systems are worth on the queries of a set: means with intervals, ceilings, differences to a baseline. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from winnow_lab.evaluating.answers import Answer
from winnow_lab.evaluating.systems import EXHAUSTIVE, System
from winnow_relevance import (
    Difference,
    Estimate,
    average_precision,
    best_ndcg,
    differences,
    estimates,
    ndcg,
    recall,
    reciprocal_rank,
)
from winnow_rpc.faults import InvalidArgument

Values = NDArray[np.float64]
Measure = Callable[[Sequence[str], Mapping[str, float]], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One system's quality over the queries of a set."""

    system: str
    measures: Mapping[str, Estimate]
    """Name of a measure → its mean over the queries, and the bounds of that."""
    against_baseline: Mapping[str, Difference] | None
    """Name of a measure → how far ahead of the baseline; None for the baseline itself."""
    candidates: int
    """How many documents were put in order: those that were reranked, or all that a first stage was asked for."""
    ceiling: float
    """The headline measure of the best order of the candidates: no reranker of them can do better."""
    candidate_recall: float
    """Share of the relevant documents that is among the candidates."""


@dataclass(frozen=True, slots=True)
class Report:
    """What systems are worth on one set."""

    name: str
    split: str
    query_count: int
    judged_count: int
    """Queries that the split has; of them `query_count` were drawn."""
    document_count: int
    k: int
    first_depth: int
    """Documents that each first stage was asked for: as deep as MAP and the deep recall look."""
    baseline: str
    made: Mapping[str, str]
    """How, and by what models."""
    notes: Sequence[str]
    rows: Sequence[Row]

    @property
    def headline(self) -> str:
        """The measure that ceilings and differences are first looked at by."""
        return f"nDCG@{self.k}"


@dataclass(frozen=True, slots=True)
class Judged:
    """Every query's value of every measure, for every system."""

    systems: Sequence[System]
    measures: Sequence[str]
    values: Values
    """[queries, systems, measures]."""
    ceilings: Values
    """[queries, systems, 2]: nDCG@k of the best order of the candidates, and the candidates' recall."""

    def of(self, system: str, measure: str) -> Values:
        """One system's values of one measure, query by query."""
        names = [each.name for each in self.systems]
        found: Values = self.values[:, names.index(system), list(self.measures).index(measure)]
        return found


def measures(*, k: int, deep: int) -> dict[str, Measure]:
    """The measures by name, the headline first; those of the whole run look `deep` down."""
    return {
        f"nDCG@{k}": partial(ndcg, k=k),
        f"MRR@{k}": partial(reciprocal_rank, k=k),
        f"Recall@{k}": partial(recall, k=k),
        f"MAP@{deep}": partial(average_precision, k=deep),
        f"Recall@{deep}": partial(recall, k=deep),
    }


def measure(answers: Sequence[Answer], systems: Sequence[System], *, k: int, deep: int) -> Judged:
    """Every query's values."""
    named = measures(k=k, deep=deep)
    values = np.zeros((len(answers), len(systems), len(named)))
    ceilings = np.zeros((len(answers), len(systems), 2))
    for at, answer in enumerate(answers):
        judged = answer.query.judgements
        for column, system in enumerate(systems):
            ids = system.order(answer).ids
            values[at, column] = [each(ids, judged) for each in named.values()]
            # Exhaustive search has every document before it, though not all come back.
            reachable = list(judged) if system.name == EXHAUSTIVE else _candidates(system, answer)
            ceilings[at, column] = best_ndcg(reachable, judged, k=k), recall(reachable, judged, k=len(reachable))
    return Judged(systems, list(named), values, ceilings)


def check_baseline(systems: Sequence[System], baseline: str) -> None:
    """Raises InvalidArgument if none of the systems is the baseline."""
    names = [system.name for system in systems]
    if baseline not in names:
        raise InvalidArgument(
            f"the baseline {baseline!r} is none of what is measured: {', '.join(names)}", field="baseline"
        )


def estimated(judged: Judged, *, baseline: str, first_depth: int, document_count: int) -> list[Row]:
    """Rows of all systems. Raises InvalidArgument if none of them is the baseline."""
    check_baseline(judged.systems, baseline)
    names = [system.name for system in judged.systems]
    queries, count, width = judged.values.shape
    against = judged.values[:, [names.index(baseline)], :].repeat(count, axis=1)
    means = estimates(judged.values.reshape(queries, -1))
    gains = differences(judged.values.reshape(queries, -1), against.reshape(queries, -1))
    rows = []
    for column, system in enumerate(judged.systems):
        part = slice(column * width, (column + 1) * width)
        ceiling, found = judged.ceilings[:, column].mean(axis=0)
        rows.append(
            Row(
                system=system.name,
                measures=dict(zip(judged.measures, means[part], strict=True)),
                against_baseline=None
                if system.name == baseline
                else dict(zip(judged.measures, gains[part], strict=True)),
                candidates=document_count if system.name == EXHAUSTIVE else system.depth or first_depth,
                ceiling=float(ceiling),
                candidate_recall=float(found),
            )
        )
    return rows


def _candidates(system: System, answer: Answer) -> Sequence[str]:
    retrieved = system.retrieved(answer).ids
    return retrieved[: system.depth] if system.depth else retrieved
