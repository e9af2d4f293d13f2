"""Trainings in real processes: killed in the middle of an epoch, and two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.models.learnable import groups, model_without_dropout, triplets, write_groups
from tests.models.tiny import build_bi_encoder
from winnow_inference.models.weights import sha256_of
from winnow_lab.training.command import train
from winnow_lab.training.run_folder import RunFolder, step_of

_SECONDS = 240
# One thread each: two processes share the machine, and results do not depend on how many cores it has.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_PROCESS = [sys.executable, "-m", "winnow_lab.training"]
_PROCESSES = [
    sys.executable,
    *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "winnow_lab.training"],
]

pytestmark = pytest.mark.timeout(2 * _SECONDS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(kind: str, data: Path, out: Path, start: Path, *more: str) -> list[str]:
    quick = ["--batch", "8", "--learning-rate", "0.003", "--hold-out", "0", "--json"]
    return [kind, str(data), "--out", str(out), "--from", str(start), *quick, *more]


def in_processes(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done


def in_this_process(command: list[str]) -> dict[str, Any]:
    done = CliRunner().invoke(train, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_training_that_is_killed_in_mid_epoch_goes_on_at_its_step(tmp_path: Path) -> None:
    start = build_bi_encoder(tmp_path / "start")
    data = write_groups(tmp_path / "groups.jsonl", groups(120))
    # 15 steps an epoch, a checkpoint after each fourth: none at the end of an epoch.
    more = ["--epochs", "3", "--every", "4"]
    folder = RunFolder(tmp_path / "killed")
    process = subprocess.Popen(
        [*_PROCESS, *arguments("cross-encoder", data, folder.out, start, *more)],
        env=_ENVIRONMENT,
        stderr=subprocess.PIPE,
    )
    try:
        give_up = time.monotonic() + _SECONDS
        while len(reached := [step_of(path) or 0 for path in folder.whole()]) < 1 or reached[-1] < 16:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate(timeout=_SECONDS)
    assert process.returncode == -signal.SIGKILL
    [*_, last] = folder.whole()
    resumed = in_processes([*_PROCESS, *arguments("cross-encoder", data, folder.out, start, *more)])
    assert f"going on from step {step_of(last)} of 45" in resumed.stderr
    whole = in_this_process(arguments("cross-encoder", data, tmp_path / "whole", start, *more))
    assert json.loads(resumed.stdout)["steps"] == whole["steps"] == 45
    assert sha256_of(folder.out / "model.safetensors") == sha256_of(tmp_path / "whole" / "model.safetensors")


def losses(out: Path) -> list[float]:
    history: Any = json.loads(RunFolder(out).history.read_text())["history"]
    return [point["value"] for point in history["losses"]]


@pytest.mark.parametrize(("kind", "loss"), [("cross-encoder", "lambda"), ("bi-encoder", "mnr")])
def test_two_processes_train_as_one_does_on_the_same_batches(tmp_path: Path, kind: str, loss: str) -> None:
    start = model_without_dropout(tmp_path / "start")
    data = tmp_path / "data.jsonl"
    if kind == "cross-encoder":
        write_groups(data, groups(32))
    else:
        rows = [
            {"anchor": each.anchor, "positive": each.positive, "negative": each.negatives[0]} for each in triplets(32)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--loss", loss, "--epochs", "2", "--every", "1"]
    together = in_processes([*_PROCESSES, *arguments(kind, data, tmp_path / "together", start, *more)])
    alone = in_this_process(arguments(kind, data, tmp_path / "alone", start, *more))
    # One line of JSON: the second process says nothing.
    assert json.loads(together.stdout)["steps"] == alone["steps"] == 8
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-3)
    assert len(set(losses(tmp_path / "alone"))) == 8
