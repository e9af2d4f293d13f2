"""What is kept of an evaluation: others measure the same of it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import pytrec_eval

from tests.unit.lab.evaluating.made_up import an_answer
from winnow_gateway.ordering import Mixing
from winnow_lab.evaluating.answers import DENSE, HYBRID, Answer, Order, Recommended
from winnow_lab.evaluating.judging import Report, estimated, measure
from winnow_lab.evaluating.keeping import keep, new_folder, slug, trec_lines
from winnow_lab.evaluating.systems import systems


def answers(count: int) -> list[Answer]:
    chance = random.Random(0)
    documents = [f"d{number}" for number in range(60)]
    return [
        an_answer(
            {id_: float(chance.randint(0, 3)) for id_ in chance.sample(documents, 12)},
            dense=chance.sample(documents, 30),
            lexical=chance.sample(documents, 20),
            hybrid=chance.sample(documents, 30),
            # Few different ones, so that many are equal.
            scores={id_: chance.randint(0, 4) / 4 for id_ in documents},
            query=f"q{number}",
        )
        for number in range(count)
    ]


def test_trec_eval_measures_the_same_of_the_runs_that_are_kept(tmp_path: Path) -> None:
    made = answers(25)
    compared = systems(depths=[5, 20], recommended=Recommended({HYBRID: Mixing(k=10)}))
    judged = measure(made, compared, k=10, deep=30)
    report = Report(
        name="set",
        split="test",
        query_count=25,
        judged_count=25,
        document_count=60,
        k=10,
        first_depth=30,
        baseline=HYBRID,
        made={},
        notes=[],
        rows=estimated(judged, baseline=HYBRID, first_depth=30, document_count=60),
    )
    keep(tmp_path / "kept", report, judged, made)

    qrels = {each.query.id: {id_: int(grade) for id_, grade in each.query.judgements.items()} for each in made}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10,30", "map_cut.30", "recip_rank"})
    for system in compared:
        run: dict[str, dict[str, float]] = {}
        with gzip.open(tmp_path / "kept" / "runs" / f"{slug(system.name)}.trec.gz", "rt") as file:
            for line in file:
                query, _, document, _, score, _ = line.split()
                run.setdefault(query, {})[document] = float(score)
        theirs = evaluator.evaluate(run)
        for ours, name in (
            ("nDCG@10", "ndcg_cut_10"),
            ("Recall@10", "recall_10"),
            ("MAP@30", "map_cut_30"),
            ("Recall@30", "recall_30"),
        ):
            expected = [theirs[each.query.id][name] for each in made]
            assert judged.of(system.name, ours).tolist() == pytest.approx(expected, abs=1e-6), (system.name, ours)

    lines = [json.loads(line) for line in (tmp_path / "kept" / "queries.jsonl").read_text().splitlines()]
    assert len(lines) == 25
    assert lines[3]["systems"][DENSE]["nDCG@10"] == pytest.approx(judged.of(DENSE, "nDCG@10")[3])
    kept = json.loads((tmp_path / "kept" / "report.json").read_text())
    assert kept["rows"][0]["measures"]["nDCG@10"]["mean"] == pytest.approx(judged.of(DENSE, "nDCG@10").mean())
    with gzip.open(tmp_path / "kept" / "answers.jsonl.gz", "rt") as file:
        first = json.loads(next(file))
    assert first["first_stages"][DENSE]["ids"] == list(made[0].first_stages[DENSE].ids)


def test_equal_scores_are_written_so_that_the_order_stays() -> None:
    lines = trec_lines("q", Order(["b", "c", "a"], [0.5, 0.5, 0.5]), "tag")
    scores = [float(line.split()[4]) for line in lines]
    assert scores[0] == 0.5
    assert scores[0] > scores[1] > scores[2] > 0.4999
    assert lines[0] == "q Q0 b 1 0.5 tag\n"


def test_a_systems_name_becomes_a_files() -> None:
    assert slug("hybrid, rerank 20, k=10 1:2") == "hybrid-rerank-20-k=10-1-2"


def test_folders_of_one_moment_and_name_are_others(tmp_path: Path) -> None:
    made = {new_folder(tmp_path / "out", "squad") for _ in range(3)}
    assert len(made) == 3
    assert {*(tmp_path / "out").iterdir()} == made


def test_a_place_that_cannot_be_a_folder_ends_it(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(FileExistsError, match="out"):
        new_folder(tmp_path / "out", "squad")
