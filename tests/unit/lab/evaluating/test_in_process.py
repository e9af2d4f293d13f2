"""Answers in this process, with tiny models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, Asking, fuse
from winnow_lab.evaluating.evaluation import evaluate, wanted_of
from winnow_lab.evaluating.in_process import InProcess, similarities
from winnow_lab.evaluating.sets import JudgedSet, read_set
from winnow_rpc.faults import InvalidArgument


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    cross = build_cross_encoder(folder / "cross")
    learned = {
        "mixing": {"k": 10, "retrieval_weight": 1, "rerank_weight": 2},
        "score_mixings": {"hybrid": {"rerank": 1.0, "dense": 0.5}},
    }
    (cross / "winnow.json").write_text(json.dumps({"version": 2, **learned}))
    return build_bi_encoder(folder / "bi"), cross


@pytest.fixture
async def process(models: tuple[Path, Path]) -> AsyncIterator[InProcess]:
    async with InProcess(model=str(models[0]), reranker_model=str(models[1]), engine="torch") as made:
        yield made


@pytest.fixture
def judged(tmp_path: Path) -> JudgedSet:
    return read_set(write_set(tmp_path / "made-up"), split="test")


async def answers(process: InProcess, judged: JudgedSet, asking: Asking) -> list[Answer]:
    with Progress(disable=True) as progress:
        async with aclosing(process.answers(judged, asking, progress)) as found:
            return [answer async for answer in found]


async def test_first_stages_are_exact_and_fused_as_by_the_gateway(process: InProcess, judged: JudgedSet) -> None:
    found = await answers(process, judged, Asking(first_depth=5))
    assert [answer.query.id for answer in found] == [query.id for query in judged.queries]
    texts = await process.embed([query.text for query in judged.queries], query=True)
    passages = await process.embed(list(DOCUMENTS.values()), query=False)
    near = similarities(texts, passages, "cosine")
    for at, answer in enumerate(found):
        stages = answer.first_stages
        best = sorted(range(len(DOCUMENTS)), key=lambda each, row=near[at]: -row[each])  # type: ignore[misc]
        assert list(stages[DENSE].ids) == [list(DOCUMENTS)[each] for each in best[:5]]
        assert set(stages[HYBRID].ids[:2]) <= {*stages[DENSE].ids, *stages[BM25].ids}
        assert all(score > 0 for score in stages[BM25].scores)
    assert found[1].first_stages[BM25].ids == ["river"]
    whole = (await answers(process, judged, Asking(first_depth=8)))[0].first_stages
    assert fuse(Asking().fusion, whole[DENSE], whole[BM25]).first(8) == whole[HYBRID]


async def test_each_candidate_is_scored_once_whatever_the_depths(
    process: InProcess, judged: JudgedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[tuple[str, str]] = []
    score = process.score

    async def counted(firsts: Sequence[str], seconds: Sequence[str]) -> list[float]:
        pairs.extend((firsts[0], second) for second in seconds)
        return await score(firsts, seconds)

    monkeypatch.setattr(process, "score", counted)
    wanted = wanted_of(depths=[1, 2, 4], first_depth=5)
    with Progress(disable=True) as progress:
        made = await evaluate(process, judged, wanted, progress)
    assert len(pairs) == len(set(pairs)) == sum(len(answer.rerank_scores) for answer in made.answers)
    names = [row.system for row in made.report.rows]
    assert "hybrid, rerank 4, mixed" in names, "the model's own mixing is judged beside the reranker alone"
    assert process.recommended.mixings == {DENSE: Mixing(10, 1, 2), HYBRID: ScoreMixing(rerank=1.0, dense=0.5)}
    assert process.recommended.activation == "sigmoid"
    assert len(names) == 3 + 2 * 3 * 2
    assert made.report.query_count == 4


async def test_exhaustive_has_every_document_and_the_scores_that_reranking_has(
    process: InProcess, judged: JudgedSet
) -> None:
    every = await answers(process, judged, Asking(first_depth=5, rerank_depth=3, exhaustive=True))
    some = await answers(process, judged, Asking(first_depth=5, rerank_depth=3))
    for whole, part in zip(every, some, strict=True):
        assert whole.exhaustive is not None
        assert set(whole.exhaustive.ids) == set(DOCUMENTS)
        assert list(whole.exhaustive.scores) == sorted(whole.exhaustive.scores, reverse=True)
        assert 3 <= len(part.rerank_scores) <= 6
        for id_, score in part.rerank_scores.items():
            assert whole.rerank_scores[id_] == pytest.approx(score, abs=1e-4)


async def test_a_corpus_too_large_to_be_read_whole_is_refused_before_anything_is_embedded(
    process: InProcess, judged: JudgedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow_lab.evaluating.evaluation.MAX_EXHAUSTIVE", 7)
    wanted = wanted_of(depths=[], first_depth=5, asking=Asking(exhaustive=True))
    with Progress(disable=True) as progress, pytest.raises(InvalidArgument, match=r"8 documents.*--prefix"):
        await evaluate(process, judged, wanted, progress)
    assert progress.tasks == []
