"""What was collected is kept and read again; a whole run learns from it, and stores what it learned."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from winnow_client.cli.main import main
from winnow_gateway.ordering import StagePlace
from winnow_inference.models.learned import Mixing, Platt, read_learned
from winnow_lab.calibrating import collecting
from winnow_lab.calibrating.candidates import (
    Candidate,
    CandidateFile,
    JudgedCandidates,
    Source,
    fold_of,
    half_of,
    read_candidates,
)
from winnow_lab.calibrating.collecting import Collecting, SetSplit, cache_path
from winnow_lab.calibrating.command import _set_split
from winnow_lab.calibrating.learning import Part, learn_all
from winnow_lab.data.beir import JudgedQuery
from winnow_rpc.faults import FailedPrecondition, InvalidArgument, Unavailable

SOURCE = Source(
    set="letters",
    split="test",
    depth=20,
    reranker_fingerprint="c" * 64,
    embedder_fingerprint="e" * 64,
    activation="sigmoid",
)
RANKS = Mixing(k=10, retrieval_weight=1, rerank_weight=1)


def made_up(count: int, *, seed: int = 0) -> list[JudgedCandidates]:
    """Queries of 20 candidates, of which BM25 found half; reranker and vectors know a little of which is relevant."""
    draw = np.random.default_rng(seed)
    queries = []
    for number in range(count):
        relevant = int(draw.integers(20))
        logits, cosines = draw.normal(-2, 1, 20), draw.normal(0, 1, 20)
        logits[relevant] += 2
        cosines[relevant] += 1
        ranks = np.argsort(np.argsort(-cosines)) + 1
        candidates = [
            Candidate(
                id=f"d{at}",
                rerank=float(1 / (1 + np.exp(-logits[at]))),
                dense=StagePlace(float(cosines[at]), int(ranks[at])),
                lexical=StagePlace(1 / (1 + int(at)), int(at) // 2 + 1) if at % 2 else None,
            )
            for at in np.argsort(-cosines)
        ]
        queries.append(
            JudgedCandidates(
                query_id=f"q{number}", query="?", judgements={f"d{relevant}": 1.0}, candidates=tuple(candidates)
            )
        )
    return queries


def write(path: Path, queries: list[JudgedCandidates], source: Source = SOURCE) -> None:
    with CandidateFile(path) as file:
        for query in queries:
            file.add(source, query)


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    queries = made_up(3)
    write(tmp_path / "new" / "kept.jsonl", queries[:2])
    write(tmp_path / "new" / "kept.jsonl", queries[2:])
    assert read_candidates(tmp_path / "new" / "kept.jsonl") == (SOURCE, queries)


def test_a_line_that_a_kill_tore_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path, queries = tmp_path / "kept.jsonl", made_up(3)
    write(path, queries[:2])
    path.write_bytes(path.read_bytes()[:-10])
    assert read_candidates(path) == (SOURCE, queries[:1])
    write(path, queries[2:])
    assert read_candidates(path) == (SOURCE, [queries[0], queries[2]])
    path.write_bytes(b'{"set": "let')
    write(path, queries)
    assert read_candidates(path) == (SOURCE, queries)


def test_candidates_of_other_models_are_not_added(tmp_path: Path) -> None:
    path, queries = tmp_path / "kept.jsonl", made_up(2)
    write(path, queries[:1])
    other = Source(**{**{name: getattr(SOURCE, name) for name in SOURCE.__slots__}, "embedder_fingerprint": "f" * 64})
    with pytest.raises(FailedPrecondition, match=r"kept\.jsonl was collected with other models"):
        write(path, queries[1:], other)
    assert read_candidates(path) == (SOURCE, queries[:1])


def test_a_line_that_is_no_query_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    write(path, made_up(2))
    path.write_bytes(path.read_bytes() + b'{"query_id": "x"}\n')
    with pytest.raises(InvalidArgument, match=r"kept\.jsonl, line 4: not what was collected"):
        read_candidates(path)


def test_halves_and_folds_are_even_and_independent() -> None:
    ids = [f"query {number}" for number in range(4000)]
    table = np.zeros((2, 5))
    for id_ in ids:
        table[half_of(id_), fold_of(id_, 5)] += 1
    assert table.sum() == 4000
    assert np.all(np.abs(table - 400) < 80)


def test_too_few_queries_and_other_models_are_refused() -> None:
    part = Part(name="letters", split="test", queries=made_up(19), source=SOURCE)
    with pytest.raises(InvalidArgument, match="19 queries have a relevant document"):
        learn_all([part], [], rank_mixing=RANKS)
    other = Source(**{**{name: getattr(SOURCE, name) for name in SOURCE.__slots__}, "reranker_fingerprint": "f" * 64})
    with pytest.raises(FailedPrecondition, match="letters:dev were collected with other models"):
        learn_all([part, Part(name="letters", split="dev", queries=made_up(19), source=other)], [], rank_mixing=RANKS)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A judged set of which everything was collected already, and a model's folder."""
    folder, model, queries = tmp_path / "letters", tmp_path / "model", made_up(120)
    (folder / "qrels").mkdir(parents=True)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": query.query_id, "text": query.query}) + "\n" for query in queries)
    )
    documents = [{"_id": f"d{at}", "title": "", "text": f"number {at}"} for at in range(20)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents))
    rows = [f"{query.query_id}\t{id_}\t1\n" for query in queries for id_ in query.judgements]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    given = Collecting(
        reranker=model, embedder=None, depth=20, queries=120, data=tmp_path / "index", cache=tmp_path / "cache"
    )
    write(cache_path(SetSplit(folder, "test"), given), queries)
    return tmp_path


def run(folder: Path, *more: str) -> tuple[int, str, str]:
    arguments = [
        "calibrate", str(folder / "model"), "--data", str(folder / "letters"), "--depth", "20",
        "--cache", str(folder / "cache"), "--index", str(folder / "index"), *more,
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_a_run_stores_what_it_learned_where_the_reranker_reads_it(letters: Path) -> None:
    status, shown, said = run(letters, "--check", f"{letters / 'letters'}:test")
    assert status == 0, said
    learned = read_learned(letters / "model")
    assert learned.mixing == RANKS
    assert learned.score_mixings.hybrid
    assert learned.score_mixings.dense
    assert isinstance(learned.calibration, Platt)
    assert learned.model_fingerprint == "c" * 64
    counts = [learned.learned[name]["letters:test"] for name in ("learned_from", "checked_on")]
    assert sum(counts) == 120
    assert min(counts) > 30
    for expected in (
        "reranker alone",
        "ranks mixed",
        "scores mixed",
        "sigmoid of the score",
        "on the queries to check",
    ):
        assert expected in shown
    assert "winnow.json" in said


def test_a_dry_run_writes_nothing_and_json_is_one_object(letters: Path) -> None:
    status, shown, said = run(letters, "--dry-run", "--json")
    assert status == 0, said
    report = json.loads(shown)
    assert report["learned_from"] == {"letters:test": 120}
    assert [each["kind"] for each in report["learnings"]] == ["hybrid", "dense", "lexical"]
    assert report["calibration_checked"] is None
    assert report["calibrated"]["after"]["log_loss"] < report["calibrated"]["before"]["log_loss"]
    assert not (letters / "model" / "winnow.json").exists()
    assert "--dry-run" in said


def test_what_a_model_says_of_mixing_ranks_is_kept(letters: Path) -> None:
    stored = {"mixing": {"k": 3, "retrieval_weight": 1, "rerank_weight": 2}}
    (letters / "model" / "winnow.json").write_text(json.dumps(stored))
    out = letters / "elsewhere"
    out.mkdir()
    status, _, said = run(letters, "--out", str(out))
    assert status == 0, said
    assert read_learned(out).mixing == Mixing(k=3, retrieval_weight=1, rerank_weight=2)
    assert json.loads((letters / "model" / "winnow.json").read_text()) == stored


def test_a_folder_without_a_model_is_named(letters: Path) -> None:
    (letters / "model" / "model.safetensors").unlink()
    status, _, said = run(letters)
    assert status == 1
    assert f"{letters / 'model'} holds no cross-encoder" in " ".join(said.split())


def test_a_set_that_is_not_there_is_named(letters: Path) -> None:
    status, _, said = run(letters, "--check", str(letters / "nothing"))
    assert status == 2
    assert f"there is no folder {letters / 'nothing'}" in " ".join(said.split())


def test_a_split_that_is_packed_is_the_default_too(letters: Path) -> None:
    qrels = letters / "letters" / "qrels"
    (qrels / "dev.tsv.gz").write_bytes(gzip.compress((qrels / "test.tsv").read_bytes()))
    split = _set_split(str(letters / "letters"))
    assert split.split == "dev"
    assert _set_split(f"{letters / 'letters'}:test").split == "test"


def test_a_folder_with_a_colon_in_its_name_is_found(letters: Path) -> None:
    folder = (letters / "letters").rename(letters / "letters:of-2026")
    assert _set_split(str(folder)) == SetSplit(folder, "test")
    assert _set_split(f"{folder}:test") == SetSplit(folder, "test")


def test_a_set_that_is_written_in_two_ways_is_halved_all_the_same(letters: Path) -> None:
    status, shown, said = run(letters, "--check", f"{letters}/model/../letters:test", "--dry-run", "--json")
    assert status == 0, said
    report = json.loads(shown)
    assert report["learned_from"]["letters:test"] + report["checked_on"]["letters:test"] == 120


def test_qrels_that_name_a_missing_document_are_refused_or_those_lines_left_out(letters: Path) -> None:
    with (letters / "letters" / "qrels" / "test.tsv").open("a") as file:
        file.write("q0\td99\t1\n")
    status, _, said = run(letters, "--dry-run")
    assert status == 1
    assert "names the document 'd99', which is not in corpus.jsonl" in " ".join(said.split())
    status, _, said = run(letters, "--dry-run", "--skip-missing")
    assert status == 0, said


def collecting_of(folder: Path, **changed: str | None) -> Collecting:
    return Collecting(
        reranker=folder / "model",
        embedder=changed.get("embedder"),
        depth=20,
        queries=120,
        data=folder / "index",
        cache=folder / "cache",
    )


def test_candidates_that_were_collected_before_count_by_the_judgements_of_now(letters: Path) -> None:
    before = json.loads(run(letters, "--dry-run", "--json")[1])
    qrels = letters / "letters" / "qrels" / "test.tsv"
    header, *rows = qrels.read_text().splitlines()
    # No longer what the reranker likes.
    judged = (f"{row.split()[0]}\td{(int(row.split()[1][1:]) + 1) % 20}\t1" for row in rows)
    qrels.write_text("\n".join([header, *judged]))
    status, shown, said = run(letters, "--dry-run", "--json")
    assert status == 0, said
    now = json.loads(shown)
    assert now["calibrated"]["before"]["log_loss"] > before["calibrated"]["before"]["log_loss"]


@pytest.mark.parametrize("changed", ["document", "embedder", "configuration"])
def test_whatever_changes_the_scores_changes_the_caches_name(letters: Path, changed: str) -> None:
    embedder = letters / "embedder"
    embedder.mkdir()
    (embedder / "model.safetensors").write_bytes(b"other weights")
    split, given = SetSplit(letters / "letters", "test"), collecting_of(letters, embedder=str(embedder))
    before = cache_path(split, given)
    assert cache_path(split, given) == before
    if changed == "document":
        with (letters / "letters" / "corpus.jsonl").open("a") as file:
            file.write(json.dumps({"_id": "d20", "title": "", "text": "one more"}))
    elif changed == "embedder":
        (embedder / "model.safetensors").write_bytes(b"trained further")
    else:
        (letters / "model" / "config.json").write_text('{"activation": "another"}')
    assert cache_path(split, given) != before


def test_a_query_whose_text_has_changed_is_searched_again(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    async def search(client: object, split: object, queries: Sequence[JudgedQuery], *more: object) -> None:
        searched.extend(query.id for query in queries)
        raise Unavailable("no service is there")

    @asynccontextmanager
    async def services(collecting: object) -> AsyncIterator[tuple[None, str]]:
        yield None, "sigmoid"

    async def fill(*given: object) -> None:
        """Nothing is indexed."""

    monkeypatch.setattr(collecting, "_collect_split", search)
    monkeypatch.setattr(collecting, "started_services", services)
    monkeypatch.setattr(collecting, "fill", fill)
    path = letters / "letters" / "queries.jsonl"
    path.write_text(path.read_text().replace('"q7", "text": "?"', '"q7", "text": "what else"'))
    status, _, said = run(letters, "--dry-run")
    assert status == 1
    assert "no service is there" in said
    assert searched == ["q7"]
