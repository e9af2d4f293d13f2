"""`winnow promote` with tiny models: what is refused, what may serve, what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.progress import Progress

from tests.models.tiny import build_bi_encoder, build_cross_encoder
from tests.unit.lab.evaluating.made_up import DOCUMENTS, write_set
from winnow_client.cli.main import main
from winnow_lab.evaluating.answers import Asking
from winnow_lab.evaluating.in_process import InProcess
from winnow_lab.evaluating.sets import read_set
from winnow_lab.line_file import whole_lines
from winnow_lab.promoting import comparing
from winnow_lab.promoting.comparing import Kind, kind_of
from winnow_rpc.faults import FailedPrecondition, NotFound, Unavailable

Promote = Callable[..., Result]
ASKED = ["capital", "river", "bread", "music", "sea", "red", "cheese", "germany", "five", "hello"]
QUERIES = {f"q{at}": f"which {word} of the" for at, word in enumerate(ASKED)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("promote")
    build_bi_encoder(made / "bi")
    build_bi_encoder(made / "other-bi", seed=7)
    for seed in (1, 2):
        build_cross_encoder(made / f"cross-{seed}", seed=seed)
    return made


@pytest.fixture
def promote(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Promote:
    """The command, with torch, which need not convert what it computes, and a tiny bi-encoder as the default."""
    tiny = partial(InProcess, engine="torch")
    monkeypatch.setattr(comparing, "InProcess", lambda **models: tiny(**{"model": str(folder / "bi"), **models}))
    given = ["promote", "--out", str(tmp_path / "kept")]
    return lambda *arguments: CliRunner().invoke(main, [*given, *map(str, arguments)])


async def a_set_after(folder: Path, name: str, cross: Path, place: Path) -> Path:
    """A set whose right documents are those that a cross-encoder likes best: nothing is better on it."""
    write_set(place / "blank", queries=QUERIES, qrels={id_: {next(iter(DOCUMENTS)): 1} for id_ in QUERIES})
    judged = read_set(place / "blank", split="test")
    async with InProcess(model=str(folder / "bi"), reranker_model=str(cross), engine="torch") as source:
        with Progress(disable=True) as progress:
            best = {
                answer.query.id: {answer.exhaustive.ids[0]: 1}
                async for answer in source.answers(judged, Asking(exhaustive=True), progress)
                if answer.exhaustive
            }
    return write_set(place / name, queries=QUERIES, qrels=best)


async def test_a_worse_cross_encoder_is_refused_and_a_better_one_put_in_place(
    folder: Path, promote: Promote, tmp_path: Path
) -> None:
    one, two = folder / "cross-1", folder / "cross-2"
    data = await a_set_after(folder, "liked-by-one", one, tmp_path)
    place = tmp_path / "serving"

    worse = await run(promote, two, "--serving", one, "--data", data, "--depth", "8", "--into", place)
    assert worse.exit_code == 1, worse.output
    assert "Refused: the candidate is worse than the serving model" in worse.stderr
    assert "on liked-by-one test by hybrid, rerank 8, as configured" in worse.stderr
    assert not place.exists()

    better = await run(promote, one, "--serving", two, "--data", data, "--depth", "8", "--into", place, "--json")
    assert better.exit_code == 0, better.output
    said = json.loads(better.stdout)
    assert said["promoted"] is True
    assert said["comparisons"][0]["candidate"]["mean"] == pytest.approx(1.0)
    assert (place / "model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()
    assert f"winnow up --reranker-model {place}" in better.stderr


async def test_a_bi_encoder_is_judged_alone_and_in_hybrid(folder: Path, promote: Promote, tmp_path: Path) -> None:
    data = write_set(tmp_path / "made-up")
    same = await run(promote, folder / "bi", "--serving", folder / "bi", "--data", data, "--json")
    assert same.exit_code == 0, same.output
    assert [each["system"] for each in json.loads(same.stdout)["comparisons"]] == ["dense", "hybrid"]
    assert all(each["difference"]["mean"] == 0 for each in json.loads(same.stdout)["comparisons"])
    assert "winnow collections reembed NAME" in same.stderr
    other = await run(promote, folder / "other-bi", "--serving", folder / "bi", "--data", data)
    assert "made-up test" in other.stdout


async def run(promote: Promote, *arguments: object) -> Result:
    """The command, which has an event loop of its own."""
    import asyncio

    return await asyncio.to_thread(promote, *arguments)


def test_a_models_kind_is_read_from_its_configuration(folder: Path, tmp_path: Path) -> None:
    assert kind_of(folder / "bi") is Kind.BI_ENCODER
    assert kind_of(folder / "cross-1") is Kind.CROSS_ENCODER
    with pytest.raises(NotFound, match="no model"):
        kind_of(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(FailedPrecondition, match=r"config\.json"):
        kind_of(tmp_path)


async def test_a_comparison_that_was_interrupted_goes_on_and_comes_to_the_same(
    folder: Path, promote: Promote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [folder / "cross-2", "--serving", folder / "cross-1", "--data", write_set(tmp_path / "made-up"), "--json"]
    whole = await run(promote, *given)
    scored: list[str] = []
    fails_at = 7
    """All four queries are scored by the serving model by then, and some by the candidate."""
    score = InProcess.score

    async def counting(models: InProcess, firsts: Sequence[str], seconds: Sequence[str]) -> list[float]:
        scored.append(firsts[0])
        if len(scored) == fails_at:
            raise Unavailable("the power is gone")
        return await score(models, firsts, seconds)

    monkeypatch.setattr(InProcess, "score", counting)
    interrupted = await run(promote, *given)
    assert interrupted.exit_code == 1
    assert "the power is gone" in interrupted.stderr
    kept = sum(len(whole_lines(path)) - 1 for path in (tmp_path / "kept").rglob("*.jsonl"))
    assert kept >= 4
    before, fails_at = len(scored), 0
    resumed = await run(promote, *given)
    assert (resumed.exit_code, resumed.stdout) == (whole.exit_code, whole.stdout)
    assert len(scored) - before == 2 * 4 - kept, "what was scored is not scored again"
    assert "are not asked again" in resumed.stderr
    assert "not used" not in resumed.stderr
    assert list((tmp_path / "kept").rglob("*.jsonl")) == []


def test_a_place_that_is_no_link_is_refused_before_anything_is_measured(
    folder: Path, promote: Promote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "InProcess", lambda **models: pytest.fail("a model is opened"))
    (tmp_path / "serving").mkdir()
    given = [folder / "bi", "--data", write_set(tmp_path / "made-up"), "--into", tmp_path / "serving"]
    refused = promote(*given)
    assert refused.exit_code == 1
    assert "is there and no link" in refused.stderr


@pytest.mark.usefixtures("promote")  # for its models
async def test_where_nothing_can_be_written_it_compares_and_says_that_nothing_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Root may write to any folder, and makes none in a file.
    (tmp_path / ".winnow").touch()
    given = ["promote", str(folder / "bi"), "--serving", str(folder / "bi"), "--data", str(write_set(tmp_path / "set"))]
    done = await run(partial(CliRunner().invoke, main), given)
    assert done.exit_code == 0, done.output
    assert ".winnow/promote/unfinished cannot be written (Not a directory)" in done.stderr
    asked_for = await run(partial(CliRunner().invoke, main), [*given, "--out", ".winnow/promote"])
    assert asked_for.exit_code != 0, "a place that somebody chose is not left out"
