"""Measures the serving model and a candidate on the same queries of the same sets, in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from rich.progress import Progress

from winnow_gateway.documents import Document as Passage
from winnow_lab.evaluating import evaluation
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Recommended
from winnow_lab.evaluating.in_process import InProcess
from winnow_lab.evaluating.judging import Judged, measure
from winnow_lab.evaluating.mapping import in_order
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.evaluating.systems import System
from winnow_lab.promoting.deciding import Comparison, compare
from winnow_rpc.faults import FailedPrecondition, NotFound

_AT_ONCE = 2


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


async def compare_bi_encoders(
    serving: str, candidate: str, sets: Sequence[JudgedSet], *, k: int, progress: Progress
) -> list[Comparison]:
    """Each alone and in hybrid."""
    wanted = evaluation.wanted_of(depths=[], first_depth=100, k=k)
    found = []
    for model in (serving, candidate):
        async with InProcess(model=model) as source:
            found.append([(await evaluation.evaluate(source, one, wanted, progress)).judged for one in sets])
    return [
        _compared(one, name, first, second)
        for one, first, second in zip(sets, *found, strict=True)
        for name in (DENSE, HYBRID)
    ]


async def compare_cross_encoders(
    serving: str, candidate: str, sets: Sequence[JudgedSet], *, depth: int, k: int, progress: Progress
) -> list[Comparison]:
    """Each over the same hybrid candidates, ordered as its own configuration says: what a search gets by default."""
    wanted = evaluation.wanted_of(depths=[depth], first_depth=100, over=[HYBRID], k=k)
    async with InProcess(reranker_model=serving) as source:
        before = [await evaluation.evaluate(source, one, wanted, progress) for one in sets]
        first = _as_configured(depth, source.recommended)
    comparisons = []
    async with InProcess(reranker_model=candidate) as source:
        second = _as_configured(depth, source.recommended)
        for one, evaluated in zip(sets, before, strict=True):
            answers = await _scored_anew(source, one, evaluated.answers, progress)
            deep = evaluated.report.first_depth
            old = measure(evaluated.answers, [first], k=k, deep=deep)
            new = measure(answers, [second], k=k, deep=deep)
            comparisons.append(_compared(one, first.name, old, new))
    return comparisons


def _as_configured(depth: int, recommended: Recommended) -> System:
    return System(
        name=f"{HYBRID}, rerank {depth}, as configured",
        stage=HYBRID,
        depth=depth,
        mixing=recommended.mixings.get(HYBRID),
        activation=recommended.activation,
    )


async def _scored_anew(
    source: InProcess, judged: JudgedSet, answers: Sequence[Answer], progress: Progress
) -> list[Answer]:
    """The same answers with another model's scores of the same candidates."""
    passages = {each.id: Passage(each.id, each.title, each.text).passage for each in judged.documents}
    task = progress.add_task(f"score {judged.name} anew", total=len(answers))

    async def work(answer: Answer) -> Answer:
        ids = list(answer.rerank_scores)
        scores = await source.score([answer.query.text], [passages[id_] for id_ in ids])
        return replace(answer, rerank_scores=dict(zip(ids, scores, strict=True)))

    made = []
    async for answer in in_order(answers, work, at_once=_AT_ONCE):
        made.append(answer)
        progress.advance(task)
    return made


def _compared(judged: JudgedSet, system: str, serving: Judged, candidate: Judged) -> Comparison:
    headline = serving.measures[0]
    return compare(
        f"{judged.name} {judged.split}",
        system,
        headline,
        serving=serving.of(system, headline),
        candidate=candidate.of(system, headline),
    )
