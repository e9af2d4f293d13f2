"""Measures the serving model and a candidate on the same queries of the same sets, in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from rich.progress import Progress

from winnow_gateway.documents import Document as Passage
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating import evaluation
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Asking, Recommended
from winnow_lab.evaluating.evaluation import Evaluation, Source, Wanted
from winnow_lab.evaluating.in_process import InProcess
from winnow_lab.evaluating.judging import Judged, measure
from winnow_lab.evaluating.mapping import in_order
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.evaluating.systems import System
from winnow_lab.promoting.deciding import Comparison, compare
from winnow_rpc.faults import FailedPrecondition, NotFound

_AT_ONCE = 2

SERVING, CANDIDATE = "serving", "candidate"
"""What the answers of either model are kept under."""


class Kind(Enum):
    """What a model is for."""

    BI_ENCODER = "bi-encoder"
    CROSS_ENCODER = "cross-encoder"


def kind_of(folder: Path) -> Kind:
    """What the model in a folder is, by its own configuration. Raises NotFound or FailedPrecondition."""
    config = folder / "config.json"
    if (folder / "modules.json").is_file() and not config.is_file():
        return Kind.BI_ENCODER
    if not config.is_file():
        raise NotFound(f"{folder} holds no model: there is no config.json in it", reason="MODEL_NOT_FOUND")
    try:
        architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise FailedPrecondition(f"{config} is no JSON object", reason="MODEL_UNREADABLE") from error
    classifies = any(name.endswith("ForSequenceClassification") for name in architectures)
    return Kind.CROSS_ENCODER if classifies else Kind.BI_ENCODER


@dataclass(frozen=True, slots=True)
class Compared:
    """Both models on all sets."""

    comparisons: Sequence[Comparison]
    evaluations: Sequence[Evaluation]

    def forget(self) -> None:
        """Nothing will have to go on from these answers: removes what was kept for an interruption."""
        for each in self.evaluations:
            each.forget()


@dataclass(frozen=True, slots=True)
class Keeping:
    """How both models are measured."""

    progress: Progress
    unfinished: Path | None = None
    """Folder in which answers are kept as they come; what an interrupted comparison left there is not asked again."""
    anew: bool = False
    """Ask again all the same."""

    async def evaluate(self, source: Source, judged: JudgedSet, wanted: Wanted, of: str) -> Evaluation:
        """Measures one set; `of` tells the answers of both models apart."""
        folder = self.unfinished / of if self.unfinished else None
        return await evaluation.evaluate(source, judged, wanted, self.progress, unfinished=folder, anew=self.anew)


async def compare_bi_encoders(
    serving: str, candidate: str, sets: Sequence[JudgedSet], *, k: int, keeping: Keeping
) -> Compared:
    """Each alone and in hybrid."""
    wanted = evaluation.wanted_of(depths=[], first_depth=100, k=k)
    found = []
    for model, of in ((serving, SERVING), (candidate, CANDIDATE)):
        async with InProcess(model=model) as source:
            found.append([await keeping.evaluate(source, one, wanted, of) for one in sets])
    comparisons = [
        _compared(one, name, first.judged, second.judged)
        for one, first, second in zip(sets, *found, strict=True)
        for name in (DENSE, HYBRID)
    ]
    return Compared(comparisons, [each for of_model in found for each in of_model])


async def compare_cross_encoders(
    serving: str, candidate: str, sets: Sequence[JudgedSet], *, depth: int, k: int, keeping: Keeping
) -> Compared:
    """Each over the same hybrid candidates, ordered as its own configuration says: what a search gets by default."""
    wanted = evaluation.wanted_of(depths=[depth], first_depth=100, over=[HYBRID], k=k)
    async with InProcess(reranker_model=serving) as source:
        before = [await keeping.evaluate(source, one, wanted, SERVING) for one in sets]
        first = _as_configured(depth, source.recommended)
    comparisons, after = [], []
    async with InProcess(reranker_model=candidate) as source:
        second = _as_configured(depth, source.recommended)
        for one, evaluated in zip(sets, before, strict=True):
            again = await keeping.evaluate(ScoredAnew(source, evaluated.answers), one, wanted, CANDIDATE)
            deep = evaluated.report.first_depth
            old = measure(evaluated.answers, [first], k=k, deep=deep)
            new = measure(again.answers, [second], k=k, deep=deep)
            comparisons.append(_compared(one, first.name, old, new))
            after.append(again)
    return Compared(comparisons, [*before, *after])


def _as_configured(depth: int, recommended: Recommended) -> System:
    return System(
        name=f"{HYBRID}, rerank {depth}, as configured",
        stage=HYBRID,
        depth=depth,
        mixing=recommended.mixings.get(HYBRID),
        activation=recommended.activation,
    )


class ScoredAnew:
    """A source that gives the same answers with another cross-encoder's scores of the same candidates."""

    def __init__(self, models: InProcess, answers: Sequence[Answer]) -> None:
        """`models` scores; its bi-encoder is the one that found the answers."""
        self._models = models
        self._answers = {answer.query.id: answer for answer in answers}

    @property
    def recommended(self) -> Recommended:
        """What the cross-encoder's configuration recommends."""
        return self._models.recommended

    @property
    def description(self) -> Mapping[str, str]:
        """What computes, for the report."""
        return self._models.description

    async def identify(self, judged: JudgedSet, asking: Asking, progress: Progress) -> Mapping[str, str]:
        """What computes."""
        return await self._models.identify(judged, asking, progress)

    async def answers(self, judged: JudgedSet, asking: Asking, progress: Progress) -> AsyncGenerator[Answer, None]:
        """One answer a query, in the set's order."""
        passages = {each.id: Passage(each.id, each.title, each.text).passage for each in judged.documents}
        task = progress.add_task(f"score {judged.name} anew", total=len(judged.queries))

        async def work(query: JudgedQuery) -> Answer:
            answer = self._answers[query.id]
            ids = list(answer.rerank_scores)
            scores = await self._models.score([query.text], [passages[id_] for id_ in ids])
            return replace(answer, rerank_scores=dict(zip(ids, scores, strict=True)))

        async for answer in in_order(judged.queries, work, at_once=_AT_ONCE):
            yield answer
            progress.advance(task)


def _compared(judged: JudgedSet, system: str, serving: Judged, candidate: Judged) -> Comparison:
    headline = serving.measures[0]
    return compare(
        f"{judged.name} {judged.split}",
        system,
        headline,
        serving=serving.of(system, headline),
        candidate=candidate.of(system, headline),
    )
