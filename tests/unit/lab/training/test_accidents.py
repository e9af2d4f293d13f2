"""What happens to long trainings: kills, full disks, losses that are no number, folders that are another's."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.cross_encoder.losses import LambdaLoss

from tests.models.learnable import groups
from winnow_inference.models.weights import sha256_of
from winnow_lab.training.finishing import Trained
from winnow_lab.training.run_folder import RunFolder, step_of
from winnow_lab.training.running import train_cross_encoder
from winnow_lab.training.settings import Loss, TrainingSettings
from winnow_rpc.faults import FailedPrecondition, ResourceExhausted

SETTINGS = TrainingSettings(loss=Loss.LAMBDA, batch_size=8, epochs=2, learning_rate=5e-3, every=2)
"""Of 32 groups four steps an epoch, eight in all, a checkpoint after each second."""


class Told(BaseEvaluator):  # type: ignore[misc]
    """Says the metrics that it was told to, one after another; may do something at each call."""

    def __init__(self, values: Sequence[float], act: Callable[[int, Any], None] = lambda call, model: None) -> None:
        super().__init__()
        self.primary_metric = "told"
        self.values = values
        self.calls = 0
        self.act = act

    def __call__(self, model: Any, *args: Any, **options: Any) -> dict[str, float]:
        self.calls += 1
        self.act(self.calls, model)
        return {"told": self.values[min(self.calls, len(self.values)) - 1]}


class Killed(BaseException):
    """Ends a training as a signal would: nothing on the way handles it."""


def kill_at(call: int) -> Callable[[int, Any], None]:
    def act(at: int, model: Any) -> None:
        if at == call:
            raise Killed

    return act


def train(start: Path, out: Path, *evaluators: Any, settings: TrainingSettings = SETTINGS, **options: Any) -> Trained:
    return train_cross_encoder(start, groups(32), settings, evaluators, out, **options)


def weights(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


RISING = [at / 10 for at in range(10)]


@pytest.mark.parametrize("call", [3, 4, 5])
def test_a_training_that_was_killed_ends_as_one_that_was_not(bi_encoder: Path, tmp_path: Path, call: int) -> None:
    # The calls are before the first step, then after 2, 4, 6 and 8: the kill comes before the checkpoint of that step,
    # in the middle of an epoch, at its end, and in the middle of the second.
    whole = train(bi_encoder, tmp_path / "whole", Told(RISING))
    with pytest.raises(Killed):
        train(bi_encoder, tmp_path / "killed", Told(RISING, kill_at(call)))
    before = [step_of(path) for path in RunFolder(tmp_path / "killed").whole()]
    assert before[-1] == 2 * (call - 2)
    after = Told(RISING[call - 1 :])
    resumed = train(bi_encoder, tmp_path / "killed", after)
    assert after.calls == 6 - call
    assert resumed.steps == whole.steps == 8
    assert weights(resumed.out) == weights(whole.out)
    assert resumed.history.metrics == whole.history.metrics
    assert resumed.history.losses == whole.history.losses


def test_a_finished_training_is_not_done_again(bi_encoder: Path, tmp_path: Path) -> None:
    first = train(bi_encoder, tmp_path / "out", Told(RISING))
    again = Told(RISING)
    second = train(bi_encoder, tmp_path / "out", again)
    assert again.calls == 0
    assert second == first


def test_a_folder_of_another_training_is_refused_with_what_differs(bi_encoder: Path, tmp_path: Path) -> None:
    train(bi_encoder, tmp_path / "out", Told(RISING))
    other = TrainingSettings(loss=Loss.LAMBDA, batch_size=8, epochs=2, learning_rate=1e-3, every=2)
    with pytest.raises(FailedPrecondition, match=r"learning_rate \(0\.005 there, 0\.001 here\).*--overwrite"):
        train(bi_encoder, tmp_path / "out", Told(RISING), settings=other)
    before = weights(tmp_path / "out")
    train(bi_encoder, tmp_path / "out", Told(RISING), settings=other, overwrite=True)
    assert weights(tmp_path / "out") != before


def test_metrics_of_other_data_are_not_compared_with_those_from_before_a_kill(bi_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(bi_encoder, tmp_path / "out", Told(RISING, kill_at(4)), evaluated_on="a hash")
    with pytest.raises(FailedPrecondition, match=r"evaluated_on \(a hash there, another here\)"):
        train(bi_encoder, tmp_path / "out", Told(RISING), evaluated_on="another")
    assert train(bi_encoder, tmp_path / "out", Told(RISING[3:]), evaluated_on="a hash").steps == 8


def test_an_empty_folder_is_begun_in_with_overwrite_too(bi_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert train(bi_encoder, tmp_path / "out", overwrite=True).steps == 8


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_something_else_is_left_alone(bi_encoder: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FailedPrecondition, match="holds no training of ours"):
        train(bi_encoder, tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_number_stops_at_once_and_leaves_what_was_reached(
    bi_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LambdaLoss.forward
    calls = iter(range(1, 100))
    monkeypatch.setattr(LambdaLoss, "forward", lambda *given: whole(*given) * (math.nan if next(calls) > 4 else 1))
    with pytest.raises(FailedPrecondition) as caught:
        train(bi_encoder, tmp_path / "out", Told([0.1, 0.9, 0.2]))
    folder = RunFolder(tmp_path / "out")
    said = caught.value.message
    assert said.startswith("the training came apart at step 5: the loss is nan")
    assert "lower --learning-rate than 0.005" in said
    assert f"What was reached before is in {folder.checkpoints / 'checkpoint-2'}" in said
    assert [step_of(path) for path in folder.whole()] == [2, 4]
    assert not folder.finished()


def test_a_learning_rate_that_is_far_too_high_is_the_same_accident(bi_encoder: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=1e30, warmup=0.0, bf16=True)
    with pytest.raises(FailedPrecondition, match="or compute without --bf16"):
        train(bi_encoder, tmp_path / "out", settings=settings)


def full_disk(*args: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_earlier_checkpoint_whole_and_no_half_one(
    bi_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights(train(bi_encoder, tmp_path / "whole", Told(RISING)).out)

    def fill(call: int, model: Any) -> None:
        if call == 3:
            monkeypatch.setattr(torch, "save", full_disk)

    with pytest.raises(ResourceExhausted) as caught:
        train(bi_encoder, tmp_path / "out", Told(RISING, fill))
    assert "the checkpoint of step 4 could not be written: [Errno 28] No space left on device" in caught.value.message
    assert "Make room and give the same command again" in caught.value.message
    folder = RunFolder(tmp_path / "out")
    assert [path.name for path in folder.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.undo()
    assert weights(train(bi_encoder, tmp_path / "out", Told(RISING[2:])).out) == expected


def test_a_half_written_checkpoint_is_never_gone_on_from(bi_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(bi_encoder, tmp_path / "out", Told(RISING, kill_at(4)))
    folder = RunFolder(tmp_path / "out")
    half = folder.checkpoints / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half of it")
    (half / "trainer_state.json").write_text("{}")
    assert folder.latest() == folder.checkpoints / "checkpoint-4"
    assert not half.exists()


def test_the_model_of_the_best_evaluation_is_kept(bi_encoder: Path, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    evaluator = Told([0.1, 0.2, 0.9, 0.3, 0.4], lambda call, model: seen.append(next(model.parameters()).clone()))
    trained = train(bi_encoder, tmp_path / "out", evaluator)
    assert trained.history.best is not None
    assert trained.history.best.step == 4
    from safetensors.torch import load_file

    kept = load_file(trained.out / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(kept, seen[2])
    assert not torch.equal(kept, seen[-1])


def test_a_training_stops_early_without_a_better_metric_and_counts_on_after_a_kill(
    bi_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainingSettings(loss=Loss.LAMBDA, batch_size=8, epochs=5, learning_rate=5e-3, every=2, patience=3)
    values = [0.1, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1]
    trained = train(bi_encoder, tmp_path / "out", Told(values), settings=settings)
    # The best is at step 2; three evaluations later it is step 8 of 20.
    assert trained.steps == 8
    with pytest.raises(Killed):
        train(bi_encoder, tmp_path / "killed", Told(values, kill_at(5)), settings=settings)
    resumed = train(bi_encoder, tmp_path / "killed", Told(values[4:]), settings=settings)
    assert resumed.steps == 8
    assert weights(resumed.out) == weights(trained.out)
