"""`winnow train` from data on disk to a model, in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.models.learnable import groups, triplets, write_groups, write_judged_set
from tests.models.tiny import WORDS
from winnow_client.cli.main import main
from winnow_lab.data.converting import as_judged_set
from winnow_lab.data.examples import Groups, ScoredPair, ScoredPairs, Triplets
from winnow_lab.training.encoding import embedder, taught
from winnow_lab.training.evaluating import Sampling, candidates, group_samples, sampled
from winnow_lab.training.mining import MiningSettings
from winnow_lab.training.negatives import find_negatives
from winnow_rpc.faults import InvalidArgument

Train = Callable[..., Result]


@pytest.fixture
def train(bi_encoder: Path, tmp_path: Path) -> Train:
    """Runs `winnow train` with tiny models and quick settings, into `out`."""

    def run(kind: str, *arguments: str | Path) -> Result:
        models = ["--from", bi_encoder, *(["--miner", bi_encoder] if kind == "cross-encoder" else [])]
        quick = ["--out", tmp_path / "out", "--batch", "4", "--steps", "2", "--learning-rate", "0.01"]
        return CliRunner().invoke(main, ["train", kind, *map(str, [*models, *quick, *arguments])])

    return run


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_a_cross_encoder_is_trained_on_a_judged_set_with_mined_negatives(train: Train, tmp_path: Path) -> None:
    folder = write_judged_set(tmp_path / "set")
    result = train("cross-encoder", folder, "--json", "--negatives", "3")
    said = told(result)
    assert said["metric"] == "dev_ndcg@10"
    assert (said["examples"], said["steps"]) == (12, 2)
    assert "train on set, split train: 12 retrieval, loss lambda" in result.stderr
    assert "looking for hard negatives of 12 queries in 96 documents" in result.stderr
    assert "evaluate on set, split dev: 12 retrieval" in result.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    # Given again, it is done already: nothing is mined or trained.
    again = train("cross-encoder", folder, "--json", "--negatives", "3")
    assert told(again) == said
    assert "looking for" not in again.stderr


def test_a_bi_encoder_is_trained_on_a_judged_set(train: Train, tmp_path: Path) -> None:
    said = told(train("bi-encoder", write_judged_set(tmp_path / "set"), "--negatives", "1", "--json"))
    assert said["metric"] == "dev_cosine_ndcg@10"


def test_a_file_without_splits_is_held_out_from(train: Train, tmp_path: Path) -> None:
    path = write_groups(tmp_path / "groups.jsonl", groups(40))
    result = train("cross-encoder", path, "--hold-out", "0.3")
    assert result.exit_code == 0, result.output
    assert "before training" in result.stdout
    assert "winnow up --reranker-model" in result.stdout
    assert "evaluate on groups.jsonl: " in result.stderr


def test_training_without_evaluation_keeps_the_last_model(train: Train, tmp_path: Path) -> None:
    path = write_groups(tmp_path / "groups.jsonl", groups(8))
    said = told(train("cross-encoder", path, "--hold-out", "0", "--json"))
    assert (said["metric"], said["best"]) == (None, None)
    assert (tmp_path / "out" / "config.json").is_file()


def test_evaluation_data_may_be_another_file(train: Train, tmp_path: Path) -> None:
    path = write_groups(tmp_path / "groups.jsonl", groups(8))
    other = write_groups(tmp_path / "other.jsonl", groups(8, seed=5))
    result = train("cross-encoder", path, "--dev", other)
    assert result.exit_code == 0, result.output
    assert "evaluate on other.jsonl: 8 groups" in result.stderr


def test_other_data_to_evaluate_on_make_another_training(train: Train, tmp_path: Path) -> None:
    path = write_groups(tmp_path / "groups.jsonl", groups(8))
    one = write_groups(tmp_path / "one.jsonl", groups(8, seed=5))
    other = write_groups(tmp_path / "other.jsonl", groups(8, seed=6))
    assert train("cross-encoder", path, "--dev", one).exit_code == 0
    again = train("cross-encoder", path, "--dev", one)
    assert again.exit_code == 0, again.output
    for different in (["--dev", other], ["--dev", one, "--dev-queries", "4"]):
        refused = train("cross-encoder", path, *different)
        assert refused.exit_code == 1
        assert "holds another training, which differs in evaluated_on" in refused.stderr


def test_the_split_that_is_trained_on_is_not_what_is_evaluated_on(train: Train, tmp_path: Path) -> None:
    result = train("bi-encoder", write_judged_set(tmp_path / "set"), "--split", "dev", "--hold-out", "0.5")
    assert result.exit_code == 0, result.output
    counts = [int(count) for count in re.findall(r"on set, split dev: (\d+) retrieval", result.stderr)]
    assert len(counts) == 2
    assert sum(counts) == 12, "each query is on one side"


@pytest.mark.parametrize("count", [1, 3])
def test_pairs_of_one_score_are_not_evaluated_on(count: int) -> None:
    pairs = [ScoredPair(f"one {at}", "two", 0.5) for at in range(count)]
    with pytest.raises(InvalidArgument, match=f"the {count} pairs to evaluate on have one score .*--hold-out"):
        sampled(ScoredPairs(source="pairs.csv", pairs=pairs), Sampling())


def test_groups_of_a_teachers_scores_are_evaluated_by_its_best(train: Train, tmp_path: Path) -> None:
    # Log-odds of a teacher that is sure of nothing: none is above 0.
    made = [replace(group, labels=tuple(label - 5 for label in group.labels)) for group in groups(40)]
    result = train("cross-encoder", write_groups(tmp_path / "groups.jsonl", made), "--loss", "margin-mse", "--json")
    assert told(result)["first"]["value"] > 0
    samples = group_samples(Groups(source="", groups=made))
    assert [each["positive"] for each in samples] == [[group.documents[0]] for group in made]


def test_examples_that_do_not_fill_a_batch_with_different_texts_are_no_training(train: Train, tmp_path: Path) -> None:
    rows = [{"anchor": "which city", "positive": f"{word} city"} for word in WORDS[:20]]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = train("bi-encoder", data, "--hold-out", "0")
    assert refused.exit_code == 1
    assert "not one batch of 4 could be made of 20 examples" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert not (tmp_path / "out" / "model.safetensors").exists()
    done = train("bi-encoder", data, "--hold-out", "0", "--batch", "1", "--overwrite")
    assert done.exit_code == 0, done.output


def test_distillation_needs_a_teacher_and_learns_its_scores(train: Train, tmp_path: Path, cross_encoder: Path) -> None:
    folder = write_judged_set(tmp_path / "set")
    refused = train("cross-encoder", folder, "--loss", "margin-mse")
    assert refused.exit_code == 1
    assert "margin-mse learns from a teacher's scores: name a cross-encoder with --teacher" in refused.stderr
    result = train("cross-encoder", folder, "--loss", "margin-mse", "--teacher", cross_encoder)
    assert result.exit_code == 0, result.output
    assert "the teacher scores" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--loss", "bce", "--negatives", "0"], "give --negatives 1 or more"),
        (["--split", "test"], "has no split 'test': there are dev, train"),
        (["--kind", "pairs"], "cannot be read as pairs"),
        (["--dev", "nowhere"], "there is no nowhere"),
        (["--from", "nowhere"], "there is no model folder nowhere"),
        (["--score-range", "5"], "is no range: write it as 0:5"),
        (["--epochs", "0"], "epochs must be above 0"),
        (["--accumulate", "3"], "choose a multiple of 3"),
        (["--metric", "precision"], "there is no metric 'precision'"),
    ],
)
def test_what_is_wrong_is_one_sentence(train: Train, tmp_path: Path, arguments: list[str], said: str) -> None:
    result = train("cross-encoder", write_judged_set(tmp_path / "set"), *arguments)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert "a mistake of ours" not in result.stderr


def test_every_negative_that_is_mined_is_no_answer_and_none_comes_twice(bi_encoder: Path) -> None:
    judged = as_judged_set(Triplets(source="", triplets=triplets(30)))
    embed = embedder(bi_encoder)
    found = find_negatives(judged, embed, MiningSettings(count=6, depth=10, near=5), seed=0)
    assert found == find_negatives(judged, embed, MiningSettings(count=6, depth=10, near=5), seed=0)
    for query in judged.queries:
        answers = {judged.documents[id_] for id_ in query.judgements}
        assert len(set(found[query.id])) == 6
        assert not answers & set(found[query.id])


def test_a_corpus_with_too_few_documents_gives_fewer_negatives(bi_encoder: Path) -> None:
    judged = as_judged_set(Triplets(source="", triplets=triplets(2)))
    found = find_negatives(judged, embedder(bi_encoder), MiningSettings(count=6), seed=0)
    assert {len(texts) for texts in found.values()} == {2}


def test_candidates_are_what_the_bi_encoder_finds_with_no_answer_put_in(bi_encoder: Path) -> None:
    dev = as_judged_set(Triplets(source="", triplets=triplets(40)))
    found = candidates(dev, embedder(bi_encoder), depth=5)
    assert all(len(each["documents"]) == 5 for each in found)
    # A model that has learned nothing misses some; an evaluator that put answers in would not show it.
    assert any(not set(each["positive"]) & set(each["documents"]) for each in found)


def test_evaluation_looks_at_a_sample(bi_encoder: Path) -> None:
    dev = as_judged_set(Triplets(source="", triplets=triplets(40)))
    some = sampled(dev, Sampling(queries=5, documents=20))
    assert (len(some.queries), len(some.documents)) == (5, 20)  # type: ignore[union-attr]


def test_a_teachers_labels_are_its_raw_scores(cross_encoder: Path) -> None:
    [group] = taught(groups(1), cross_encoder)
    assert len(group.labels) == len(group.documents)
    # A probability would not be below 0.
    assert min(group.labels) < 0
