"""An evaluation that was interrupted goes on: what was answered is not asked again, and the figures are the same."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from rich.progress import Progress

from tests.unit.lab.evaluating.fake_gateway import FakeClient
from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_client import AsyncClient
from winnow_lab.evaluating.answers import Asking
from winnow_lab.evaluating.evaluation import Evaluation, evaluate, wanted_of
from winnow_lab.evaluating.sets import JudgedSet, read_set
from winnow_lab.evaluating.through_gateway import ThroughGateway
from winnow_rpc.faults import DataLoss, FailedPrecondition, InvalidArgument, Unavailable

WORDS = list(DOCUMENTS)
QUERIES = {f"q{at:02}": f"where is number {at}" for at in range(20)}
WANTED = wanted_of(depths=[2, 4], first_depth=5)


@pytest.fixture
def judged(tmp_path: Path) -> JudgedSet:
    qrels = {id_: {WORDS[at % len(WORDS)]: 1} for at, id_ in enumerate(QUERIES)}
    return read_set(write_set(tmp_path / "made-up", queries=QUERIES, qrels=qrels), split="test")


class Run:
    """Evaluations in one folder, and what was said of the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""

    async def __call__(self, fake: FakeClient, judged: JudgedSet, wanted: Any = WANTED, **how: Any) -> Evaluation:
        source = ThroughGateway(cast("AsyncClient", fake), "somewhere:1")
        screen = Console(file=StringIO(), width=400)
        try:
            with Progress(console=screen) as progress:
                return await evaluate(source, judged, wanted, progress, unfinished=self.folder, **how)
        finally:
            self.said = cast("StringIO", screen.file).getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "unfinished")


async def interrupted(run: Run, judged: JudgedSet) -> FakeClient:
    """One that failed at the query q12, as a service does that goes away."""
    fake = FakeClient()
    fake.fails_at = {QUERIES["q12"]}
    with pytest.raises(Unavailable, match="the reranker is gone"):
        await run(fake, judged)
    return fake


async def test_what_was_answered_is_not_asked_again_and_the_figures_are_the_same(
    judged: JudgedSet, run: Run, tmp_path: Path
) -> None:
    whole = await Run(tmp_path / "elsewhere")(FakeClient(), judged)
    before = await interrupted(run, judged)
    assert "12 answers are kept: the same command goes on from there" in run.said
    after = FakeClient()
    resumed = await run(after, judged)
    assert "12 of 20 queries were answered before the interruption and are not asked again" in run.said
    answered = {QUERIES[f"q{at:02}"] for at in range(12)}
    assert set(before.queries) >= answered
    # The first one alone is asked once for each first stage, for what answers now.
    assert [query for query in after.queries if query in answered] == [QUERIES["q00"]] * 2
    assert set(after.queries) - {QUERIES["q00"]} == set(QUERIES.values()) - answered
    assert resumed.answers == whole.answers
    assert resumed.report == whole.report

    kept = list(run.folder.iterdir())
    nothing = FakeClient()
    nothing.fails_at = {QUERIES["q19"]}
    assert (await run(nothing, judged)).report == whole.report, "all of it is there, also if it could not be judged"
    resumed.forget()
    assert len(kept) == 1
    assert list(run.folder.iterdir()) == []


async def test_exhaustive_orders_are_kept_too(judged: JudgedSet, run: Run) -> None:
    wanted = wanted_of(depths=[], first_depth=5, asking=Asking(exhaustive=True))
    first = await run(FakeClient(), judged, wanted)
    again = FakeClient()
    assert (await run(again, judged, wanted)).answers == first.answers
    assert len(again.queries) == 1, "one search says which model reranks"


@pytest.mark.parametrize("changed", ["model", "documents", "asking"])
async def test_answers_of_something_else_are_not_used_and_it_is_said_in_what_they_differ(
    judged: JudgedSet, run: Run, changed: str
) -> None:
    await interrupted(run, judged)
    fake, wanted = FakeClient(), WANTED
    if changed == "model":
        fake.embedder = "f" * 64
    elif changed == "documents":
        judged = replace(judged, documents=judged.documents[:-1])
    else:
        wanted = wanted_of(depths=[2], first_depth=5, over=["hybrid"])
    await run(fake, judged, wanted)
    assert set(fake.queries) == set(QUERIES.values())
    different = {"model": "bi_encoder", "documents": "documents", "asking": "rerank_depth, rerank_over"}[changed]
    assert f"is of an interrupted evaluation that differs in {different}: not used" in run.said
    assert "were answered before" not in run.said


async def test_more_queries_go_on_from_fewer(judged: JudgedSet, run: Run) -> None:
    await run(FakeClient(), replace(judged, queries=judged.queries[:5]))
    fake = FakeClient()
    await run(fake, judged)
    assert set(fake.queries) == {QUERIES["q00"], *(query.text for query in judged.queries[5:])}
    fake = FakeClient()
    other = [replace(judged.queries[1], text="another question under the same id")]
    await run(fake, replace(judged, queries=other))
    assert fake.queries.count("another question under the same id") > 2


async def test_all_is_asked_anew_if_that_is_wanted(judged: JudgedSet, run: Run) -> None:
    await interrupted(run, judged)
    fake = FakeClient()
    await run(fake, judged, anew=True)
    assert set(fake.queries) == set(QUERIES.values())


async def test_a_line_that_a_kill_tore_is_asked_again_and_one_that_is_no_answer_is_named(
    judged: JudgedSet, run: Run
) -> None:
    await interrupted(run, judged)
    (path,) = run.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    fake = FakeClient()
    await run(fake, judged)
    assert "11 of 20 queries were answered" in run.said
    assert QUERIES["q11"] in fake.queries
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{}\n", *lines[3:]]))
    with pytest.raises(DataLoss, match=r"jsonl, line 4: no answer; delete the file"):
        await run(FakeClient(), judged)


async def test_a_model_that_changes_meanwhile_ends_it(judged: JudgedSet, run: Run) -> None:
    class Changing(FakeClient):
        async def search(self, collection: str, query: str, **options: Any) -> Any:
            if query == QUERIES["q05"]:
                self.embedder = "f" * 64
            return await super().search(collection, query, **options)

    with pytest.raises(FailedPrecondition, match="another bi-encoder answers than a moment ago"):
        await run(Changing(), judged)
    assert "5 answers are kept" in run.said


async def test_a_baseline_that_is_not_measured_is_said_before_anything_is_asked(judged: JudgedSet, run: Run) -> None:
    fake = FakeClient()
    with pytest.raises(
        InvalidArgument, match=r"the baseline 'hybird' is none of what is measured: dense, BM25, hybrid"
    ):
        await run(fake, judged, replace(WANTED, baseline="hybird"))
    assert set(fake.queries) == {QUERIES["q00"]}, "the first one says what mixes"


async def test_what_is_kept_is_never_written_over(judged: JudgedSet, run: Run, tmp_path: Path) -> None:
    # Within one second, or not.
    made = await run(FakeClient(), judged)
    kept = {made.keep(tmp_path / "kept") for _ in range(3)}
    assert len(kept) == 3
    assert all((folder / "report.json").is_file() for folder in kept)
