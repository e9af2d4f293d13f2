"""`winnow train shipped-reranker`, end to end over little text and tiny models."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tests.models.tiny import WORDS, build_bi_encoder, build_cross_encoder
from winnow_client.cli.main import main
from winnow_inference.models.locating import ModelFolder
from winnow_lab.calibrating import command as calibrate_command
from winnow_lab.recipe.command import settings_for
from winnow_lab.recipe.preparing import MINING, Folders, gather, groups_file, make_groups
from winnow_lab.training import jobs
from winnow_lab.training.mining import Matrix
from winnow_lab.training.settings import WeightFormat
from winnow_lab.training.storing import stored_format


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words)).capitalize() + "."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The three sets that the recipe trains on, with a few texts each."""
    draw = random.Random(0)
    for name, prefix in (("squad", "train-"), ("travel-dup", "p")):
        folder = tmp_path / "data" / name
        (folder / "qrels").mkdir(parents=True)
        ids = [f"{prefix}{at}" for at in range(12)]
        texts = [" ".join(sentence(draw, 8) for _ in range(3)) for _ in ids]
        records = [{"_id": id_, "title": "A title", "text": text} for id_, text in zip(ids, texts, strict=True)]
        if name == "squad":
            records.append({"_id": "test-1", "title": "", "text": "Of another split."})
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
        queries = [{"_id": f"q{at}", "text": text[:40]} for at, text in enumerate(texts)]
        (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
        lines = [f"q{at}\t{id_}\t1" for at, id_ in enumerate(ids)]
        (folder / "qrels" / "train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    for name, split in (
        ("squad", "dev"),
        ("squad", "test"),
        ("travel-dup", "dev"),
        ("travel-dup", "test"),
        ("cranfield", "test"),
        ("npl", "test"),
    ):
        # What is learned from them is not looked at here.
        folder = tmp_path / "data" / name
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        (folder / "corpus.jsonl").touch()
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n")
    stsb = tmp_path / "data" / "stsb"
    stsb.mkdir()
    rows = [f'"{sentence(draw, 6)}","{sentence(draw, 6)}",{4.5 if at % 2 else 1.0}' for at in range(12)]
    (stsb / "train.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def few_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    from winnow_lab.recipe import sources

    whole = sources.functions
    monkeypatch.setattr(sources, "functions", lambda: whole(("winnow_relevance",)))


def test_groups_have_one_answer_first_and_negatives_of_their_own_source(data: Path) -> None:
    def embed(texts: object, are_queries: bool) -> Matrix:
        vectors = np.random.default_rng(are_queries).normal(size=(len(list(texts)), 8)).astype(np.float32)  # type: ignore[call-overload]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    found = gather(Folders(data=data), share=1.0, draw=random.Random(0))
    assert {source.name for source in found} == {
        "squad",
        "travel-dup, split train",
        "paraphrases",
        "sentences",
        "functions",
    }
    squad = next(source for source in found if source.name == "squad")
    assert "test-1" not in squad.judged.documents
    groups = make_groups(found, embed, seed=0, say=lambda _: None)
    assert len(groups) == sum(len(source.judged.queries) for source in found)
    for group in groups:
        assert group.labels[0] == 1
        assert set(group.labels[1:]) == {0}
        assert len(set(group.documents)) == len(group.documents) <= MINING.count + 1
        assert group.query not in group.documents
    titled = [group for group in groups if any(text.startswith("A title\n") for text in group.documents)]
    assert 12 < len(titled) < 24, "of squad's, half have lost it; all of the titles of the other set are there"


def test_the_share_is_of_the_steps_too() -> None:
    assert settings_for(1.0, seed=1).max_steps == 640
    assert settings_for(0.1, seed=1).max_steps == 64
    assert settings_for(0.0001, seed=1).max_steps == 2


def test_the_command_makes_a_model_says_how_long_it_takes_and_is_done_when_asked_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bi, cross = build_bi_encoder(tmp_path / "bi"), build_cross_encoder(tmp_path / "cross")
    monkeypatch.setattr(jobs, "default_bi_encoder", lambda: ModelFolder(id="bi", path=bi))
    out = tmp_path / "out"
    given = ["train", "shipped-reranker", str(data), "--out", str(out), "--from", str(cross), "--share", "0.003"]
    calibrated: list[WeightFormat] = []
    real = calibrate_command.calibrate
    told: list[object] = []

    @click.command()
    @click.option("--json", "machine_readable", is_flag=True)
    def calibrate(machine_readable: bool, **given: object) -> None:
        calibrated.append(stored_format(out))
        told.append(machine_readable)

    assert {each.name for each in real.params} > {each.name for each in calibrate.params}
    monkeypatch.setattr(calibrate_command, "calibrate", calibrate)
    result = CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["steps"] == 2
    assert "minutes on this machine; on one GPU about" in result.stderr
    (kept,) = (out / "training").glob("groups-*.jsonl.gz")
    with gzip.open(kept, "rt") as file:
        assert len(file.readlines()) == said["examples"]
    assert calibrated == [WeightFormat.FLOAT16], "scores are learned from as the stored weights make them"
    assert told == [True], "the report of a calibration is JSON too"
    again = CliRunner().invoke(main, [*given, "--queries", "0", "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["steps"] == 2
    assert "minutes" not in again.stderr
    with (data / "squad" / "corpus.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"_id": "train-99", "title": "", "text": "One more passage."}))
    other = CliRunner().invoke(main, [*given, "--queries", "0", "--json"])
    assert other.exit_code == 1, "the groups of other texts are other groups"
    assert "differs in examples" in " ".join(other.stderr.split())


def test_groups_are_named_by_the_texts_that_they_are_made_from_wherever_these_lie(data: Path, tmp_path: Path) -> None:
    miner = build_bi_encoder(tmp_path / "bi")
    packages = tmp_path / "Translation-en"
    packages.write_text("Package: tea")

    def name(folder: Path = data, *, seed: int = 1, with_packages: bool = False) -> str:
        folders = Folders(data=folder, packages=packages if with_packages else None)
        return groups_file(folders, miner, share=0.02, seed=seed)

    first, with_some = name(), name(with_packages=True)
    assert re.fullmatch(r"groups-0\.02-1-[0-9a-f]{12}\.jsonl\.gz", first)
    assert with_some.startswith("groups-0.02-1-packages-")
    assert len({first, with_some, name(seed=2)}) == 3
    (data / "README.md").write_text("No text of the recipe's.")
    assert name() == first
    assert name(data.rename(tmp_path / "moved")) == first
    packages.write_text("Package: coffee")
    with (tmp_path / "moved" / "stsb" / "train.csv").open("a") as file:
        file.write("\nA cup.,A mug.,4.5")
    assert name(tmp_path / "moved") != first
    assert name(tmp_path / "moved", with_packages=True) != with_some


def test_a_folder_that_the_recipe_lacks_is_named(data: Path, tmp_path: Path) -> None:
    given = ["train", "shipped-reranker", str(data), "--out", str(tmp_path / "out"), "--medical", str(tmp_path / "no")]
    (tmp_path / "no").mkdir()
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1
    assert f"{tmp_path / 'no'}, which the recipe learns from, has no files .xml" in " ".join(result.stderr.split())


def test_sets_to_calibrate_with_that_are_not_there_are_said_before_the_training(data: Path, tmp_path: Path) -> None:
    (data / "npl" / "qrels" / "test.tsv").unlink()
    given = ["train", "shipped-reranker", str(data), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1
    assert f"are learned from {data / 'npl'} in the BEIR layout" in " ".join(result.stderr.split())
    assert "--queries 0" in result.stderr
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(main, [*given, "--queries", "-5"]).exit_code == 2
