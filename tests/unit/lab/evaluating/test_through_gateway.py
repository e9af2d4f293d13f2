"""Answers through a gateway that is not at its best: nothing is measured that was not what was asked for."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import cast

import pytest
from rich.progress import Progress

from tests.unit.lab.evaluating.fake_gateway import LEARNED, FakeClient
from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_client import AsyncClient, Degradation, DegradationKind, Document
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_gateway.validation import checked_collection_name
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Asking, activation_told
from winnow_lab.evaluating.sets import JudgedSet, read_set
from winnow_lab.evaluating.through_gateway import ThroughGateway, collection_name
from winnow_rpc.faults import FailedPrecondition, Unavailable


@pytest.fixture
def judged(tmp_path: Path) -> JudgedSet:
    return read_set(write_set(tmp_path / "made-up"), split="test")


async def ask(fake: FakeClient, judged: JudgedSet, asking: Asking) -> tuple[ThroughGateway, list[Answer]]:
    source = ThroughGateway(cast("AsyncClient", fake), "somewhere:1")
    with Progress(disable=True) as progress:
        await source.identify(judged, asking, progress)
        async with aclosing(source.answers(judged, asking, progress)) as found:
            return source, [answer async for answer in found]


async def test_all_candidates_of_a_query_are_scored_by_one_search_among_them(judged: JudgedSet) -> None:
    fake = FakeClient()
    source, answers = await ask(fake, judged, Asking(first_depth=5, rerank_depth=3))
    assert list(answers[0].first_stages[HYBRID].ids) == sorted(DOCUMENTS)[:5]
    assert answers[0].rerank_scores == {id_: len(id_) for id_ in sorted(DOCUMENTS)[:3]}
    assert len(fake.asked) == 2 + 4 * len(judged.queries)
    assert source.recommended.mixings == {DENSE: Mixing(7, 1, 3), HYBRID: ScoreMixing(**asdict(LEARNED))}
    assert activation_told(answers) == "identity", "these scores are no sigmoid's"
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


@pytest.mark.parametrize(
    ("set_", "collection"),
    [
        ("squad", "squad"),
        ("My set (v2)", "My-set-v2-"),
        (".hidden", "hidden"),
        ("Données", "Donn-es"),
        ("\u043d\u0430\u0431\u043e\u0440", "set"),
        ("a" * 200, "a" * 128),
    ],
)
def test_a_set_of_any_name_has_a_collection_that_a_gateway_takes(set_: str, collection: str) -> None:
    judged = JudgedSet(name=set_, split="test", documents=[], queries=[], judged_count=0)
    assert collection_name(judged, Asking()) == collection
    assert checked_collection_name(collection) == collection
