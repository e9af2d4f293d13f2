"""Answers through a gateway that is not at its best: nothing is measured that was not what was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.progress import Progress

from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_client import (
    AsyncClient,
    Degradation,
    DegradationKind,
    Document,
    Hit,
    RankMixing,
    RetrievalKind,
    SearchMode,
    StageResult,
    searching,
)
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Asking
from winnow_lab.evaluating.sets import JudgedSet, read_set
from winnow_lab.evaluating.through_gateway import ThroughGateway, collection_name
from winnow_rpc.faults import AlreadyExists, FailedPrecondition, Unavailable

LEARNED = searching.ScoreMixing(
    rerank=1, rerank_sigmoid=0, dense=2, lexical=0, retrieval_rank=0, dense_absent=0, lexical_absent=0
)


class FakeClient:
    """Finds all documents by their ids, and scores them by the length of these."""

    def __init__(self) -> None:
        self.stored: dict[str, Document] = {}
        self.exists = False
        self.degradations: tuple[Degradation, ...] = ()
        self.unscored: set[str] = set()
        self.refused: set[str] = set()
        self.asked: list[dict[str, Any]] = []

    async def create_collection(self, name: str, **how: Any) -> None:
        if self.exists:
            raise AlreadyExists("it is there")

    async def ingest(self, name: str, documents: list[Document]) -> AsyncIterator[Any]:
        for document in documents:
            refusal = Unavailable("too odd") if document.id in self.refused else None
            self.stored |= {} if refusal else {document.id: document}
            yield SimpleNamespace(id=document.id, refusal=refusal)

    async def get_collection(self, name: str) -> Any:
        return SimpleNamespace(document_count=len(self.stored))

    async def search(self, collection: str, query: str, **options: Any) -> Any:
        self.asked.append(options)
        where = options.get("where")
        chosen = sorted(self.stored if where is None else where.ids)[: options["limit"]]
        fused = options.get("retrieval") is RetrievalKind.HYBRID
        reranks = options["mode"] in (SearchMode.TWO_STAGE, SearchMode.EXHAUSTIVE)
        hits = [
            Hit(
                document=Document(id=id_),
                rank=rank,
                score=1 / rank,
                retrieval=StageResult(score=1 / rank, rank=rank),
                rerank=StageResult(score=len(id_), rank=rank) if reranks and id_ not in self.unscored else None,
            )
            for rank, id_ in enumerate(chosen, start=1)
        ]
        return SimpleNamespace(
            hits=hits,
            degradations=self.degradations,
            embedder_fingerprint="e" * 64,
            reranker_fingerprint="r" * 64,
            mixing=RankMixing(k=7, retrieval_weight=1, rerank_weight=3) if reranks and not fused else None,
            score_mixing=LEARNED if reranks and fused else None,
        )


@pytest.fixture
def judged(tmp_path: Path) -> JudgedSet:
    return read_set(write_set(tmp_path / "made-up"), split="test")


async def ask(fake: FakeClient, judged: JudgedSet, asking: Asking) -> tuple[ThroughGateway, list[Answer]]:
    source = ThroughGateway(cast("AsyncClient", fake), "somewhere:1")
    with Progress(disable=True) as progress:
        async with aclosing(source.answers(judged, asking, progress)) as found:
            return source, [answer async for answer in found]


async def test_all_candidates_of_a_query_are_scored_by_one_search_among_them(judged: JudgedSet) -> None:
    fake = FakeClient()
    source, answers = await ask(fake, judged, Asking(first_depth=5, rerank_depth=3))
    assert list(answers[0].first_stages[HYBRID].ids) == sorted(DOCUMENTS)[:5]
    assert answers[0].rerank_scores == {id_: len(id_) for id_ in sorted(DOCUMENTS)[:3]}
    assert len(fake.asked) == 2 + 4 * len(judged.queries)
    assert source.recommended.mixings == {DENSE: Mixing(7, 1, 3), HYBRID: ScoreMixing(**asdict(LEARNED))}
    assert source.recommended.activation == "identity", "these scores are no sigmoid's"
    assert source.description["cross_encoder"] == "r" * 12


async def test_exhaustive_is_ordered_by_the_reranker_and_its_scores_are_not_asked_for_again(judged: JudgedSet) -> None:
    fake = FakeClient()
    _, answers = await ask(fake, judged, Asking(first_depth=5, rerank_depth=3, exhaustive=True))
    assert answers[0].exhaustive is not None
    assert list(answers[0].exhaustive.ids) == sorted(DOCUMENTS, key=lambda id_: (-len(id_), id_))
    assert len(fake.asked) == 2 + 4 * len(judged.queries)


@pytest.mark.parametrize("kind", [DegradationKind.RERANK_PARTIAL, DegradationKind.INDEX_PARTIAL])
async def test_a_degraded_answer_is_not_measured(judged: JudgedSet, kind: DegradationKind) -> None:
    fake = FakeClient()
    fake.degradations = (Degradation(kind=kind, reason="SLOW", message="half of it is missing"),)
    with pytest.raises(Unavailable, match="half of it is missing"):
        await ask(fake, judged, Asking())


async def test_a_query_that_was_cut_is_measured(judged: JudgedSet) -> None:
    fake = FakeClient()
    fake.degradations = (Degradation(kind=DegradationKind.QUERY_TRUNCATED, reason="CUT", message="it was long"),)
    assert len((await ask(fake, judged, Asking()))[1]) == 4


async def test_a_candidate_without_a_score_is_named(judged: JudgedSet) -> None:
    fake = FakeClient()
    fake.unscored = {"cheese"}
    with pytest.raises(FailedPrecondition, match="2 of 3 candidates of the query q1; cheese"):
        await ask(fake, judged, Asking(rerank_depth=3))


async def test_a_collection_that_holds_other_documents_is_not_measured(judged: JudgedSet) -> None:
    fake = FakeClient()
    fake.exists = True
    fake.stored = {"stale": Document(id="stale")}
    with pytest.raises(FailedPrecondition, match="winnow collections delete made-up"):
        await ask(fake, judged, Asking())


async def test_a_refused_document_is_named(judged: JudgedSet) -> None:
    fake = FakeClient()
    fake.refused = {"river"}
    with pytest.raises(FailedPrecondition, match="river of made-up was refused: too odd"):
        await ask(fake, judged, Asking())


def test_other_documents_or_another_bm25_are_another_collection(judged: JudgedSet, tmp_path: Path) -> None:
    part = read_set(write_set(tmp_path / "set"), split="test", prefix="", queries=1)
    names = {
        collection_name(judged, Asking()),
        collection_name(part, Asking()),
        collection_name(judged, Asking(average_words=64)),
        collection_name(judged, Asking(language="german")),
    }
    assert names == {"made-up", "set", "made-up-64-words", "made-up-german"}
