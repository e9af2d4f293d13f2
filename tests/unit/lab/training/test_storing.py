"""A model is stored in float32 or in float16: its folder loads anywhere, and scores the same within the rounding."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from tests.models.learnable import groups, triplets
from winnow_inference.models.loading import load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder
from winnow_lab.training.finishing import Trained
from winnow_lab.training.run_folder import RunFolder
from winnow_lab.training.running import train_bi_encoder, train_cross_encoder
from winnow_lab.training.settings import Loss, TrainingSettings, WeightFormat
from winnow_lab.training.storing import stored_format
from winnow_rpc.faults import FailedPrecondition

FLOAT16, FLOAT32 = WeightFormat.FLOAT16, WeightFormat.FLOAT32
SETTINGS = TrainingSettings(loss=Loss.LAMBDA, batch_size=8, max_steps=2, learning_rate=1e-2, warmup=0.0)
PAIRS = [("what is one", "bread two"), ("what is one", "sea two"), ("hello world", "a river to the sea")]


def train(start: Path, out: Path, weights: WeightFormat, **options: Any) -> Trained:
    return train_cross_encoder(start, groups(16), SETTINGS, [], out, weights=weights, **options)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def scores(folder: Path) -> np.ndarray[Any, Any]:
    return np.asarray(
        load_cross_encoder(ModelFolder(path=folder, id="m"), device="cpu", dtype="float32").module.predict(PAIRS)
    )


def test_float16_is_the_same_model_in_half_the_bytes(cross_encoder: Path, tmp_path: Path) -> None:
    whole = train(cross_encoder, tmp_path / "whole", FLOAT32).out
    half = train(cross_encoder, tmp_path / "half", FLOAT16).out
    assert (stored_format(whole), stored_format(half)) == (FLOAT32, FLOAT16)
    assert json.loads((half / "config.json").read_text())["dtype"] == "float16"
    there, here = tensors(whole), tensors(half)
    assert there.keys() == here.keys()
    for name, values in there.items():
        assert torch.equal(values.half(), here[name]), name
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert (half / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert scores(half) == pytest.approx(scores(whole), abs=2e-3)
    # As a stranger loads it, in the format that it is stored in.
    theirs = CrossEncoder(str(half), device="cpu")
    assert {values.dtype for values in theirs.parameters()} == {torch.float16}
    assert theirs.predict(PAIRS) == pytest.approx(scores(whole), abs=5e-3)


def test_a_finished_float32_model_is_stored_anew_when_float16_is_asked_for(cross_encoder: Path, tmp_path: Path) -> None:
    first = train(cross_encoder, tmp_path / "out", FLOAT32)
    before = tensors(first.out)
    (first.out / "README.md").write_text("written by hand")
    again = train(cross_encoder, tmp_path / "out", FLOAT16)
    assert again == first
    here = tensors(first.out)
    assert all(torch.equal(values.half(), here[name]) for name, values in before.items())
    assert json.loads((first.out / "config.json").read_text())["dtype"] == "float16"
    assert (first.out / "README.md").read_text() == "written by hand"
    assert sorted(path.name for path in RunFolder(first.out).training.iterdir()) == [
        "curve.png",
        "history.json",
        "run.json",
    ]
    when = os.stat(first.out / "model.safetensors").st_mtime_ns
    train(cross_encoder, tmp_path / "out", FLOAT16)
    assert os.stat(first.out / "model.safetensors").st_mtime_ns == when, "it is stored so already"


def test_what_was_rounded_does_not_come_back_but_by_training_anew(cross_encoder: Path, tmp_path: Path) -> None:
    train(cross_encoder, tmp_path / "out", FLOAT16)
    with pytest.raises(FailedPrecondition, match="stored in float16, and what was rounded does not come back"):
        train(cross_encoder, tmp_path / "out", FLOAT32)
    assert stored_format(train(cross_encoder, tmp_path / "out", FLOAT32, overwrite=True).out) is FLOAT32


def test_a_weight_that_float16_does_not_hold_is_named_and_float32_ends_the_training(
    cross_encoder: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for path in cross_encoder.iterdir():
        (start / path.name).write_bytes(path.read_bytes())
    weights = tensors(start)
    # Of a position that no text reaches here.
    weights["bert.embeddings.position_embeddings.weight"][31] = 1e5
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FailedPrecondition, match=r"position_embeddings\.weight reach .*--store float32"):
        train(start, tmp_path / "out", FLOAT16)
    folder = RunFolder(tmp_path / "out")
    assert not folder.finished()
    checkpoint = folder.whole()[-1]
    assert {values.dtype for values in tensors(checkpoint).values()} == {torch.float32}
    reached = tensors(checkpoint)
    trained = train(start, tmp_path / "out", FLOAT32)
    assert trained.steps == 2
    assert all(torch.equal(values, reached[name]) for name, values in tensors(trained.out).items())


def test_a_bi_encoder_in_float16_gives_the_same_vectors(bi_encoder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(loss=Loss.MNR, batch_size=8, max_steps=2, learning_rate=1e-2, warmup=0.0)
    whole, half = (
        train_bi_encoder(bi_encoder, triplets(16), settings, [], tmp_path / weights, weights=weights).out
        for weights in (FLOAT32, FLOAT16)
    )
    assert stored_format(half) is FLOAT16
    texts = ["what is one", "bread two"]
    here = load_bi_encoder(ModelFolder(path=half, id="m"), device="cpu").module.encode(texts)
    assert here == pytest.approx(SentenceTransformer(str(whole), device="cpu").encode(texts), abs=2e-3)
