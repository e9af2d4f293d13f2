"""The folder of a training run: the model on top, and in `training/` all that the run needs to go on after a kill.

    OUT/config.json, model.safetensors …   the model: what a service is pointed at
    OUT/training/run.json                  what makes the run what it is: settings, data, starting model
    OUT/training/history.json, curve.png   how it went
    OUT/training/mined-….jsonl.gz …        what took long to make: named by all that it was made from
    OUT/training/checkpoints/…             until the run is finished

A checkpoint is whole when it holds `complete.json`, which is written last; one without it is never resumed from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow_lab.writing import written
from winnow_rpc.faults import DataLoss, FailedPrecondition

COMPLETE = "complete.json"
"""The file that makes a checkpoint whole."""

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps what it makes."""

    out: Path

    @property
    def training(self) -> Path:
        """What belongs to the run and not to the model."""
        return self.out / "training"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.training / "checkpoints"

    @property
    def history(self) -> Path:
        """How the run went, as JSON; there when the run is finished."""
        return self.training / "history.json"

    @property
    def curve(self) -> Path:
        """The same as a picture."""
        return self.training / "curve.png"

    def finished(self) -> bool:
        """Whether the run has ended and the model is there."""
        return self.history.is_file()

    def check(self) -> None:
        """Raises FailedPrecondition if something else than a training of ours lies in the folder."""
        if self.out.is_dir() and any(self.out.iterdir()) and not self.training.is_dir():
            raise FailedPrecondition(
                f"{self.out} is not empty and holds no training of ours. Give another --out.", reason="NOT_EMPTY"
            )

    def claim(self, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Makes the folder this run's. Raises FailedPrecondition if it is another's, unless `overwrite` empties it."""
        self.check()
        kept = self.training / "run.json"
        if overwrite and self.out.exists():
            self._clear()
        if kept.is_file():
            different = _differences(_read(kept), identity)
            if different:
                raise FailedPrecondition(
                    f"{self.out} holds another training, which differs in {different}. Give another --out, or "
                    f"--overwrite to begin anew in this one.",
                    reason="ANOTHER_RUN",
                )
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(kept, identity)

    def whole(self) -> list[Path]:
        """The checkpoints that can be resumed from, oldest first."""
        found = {step: path for path in self._all() if (step := step_of(path)) is not None}
        return [path for _, path in sorted(found.items()) if (path / COMPLETE).is_file()]

    def latest(self) -> Path | None:
        """The checkpoint to resume from; what was half written is removed."""
        whole = self.whole()
        for path in self._all():
            if path not in whole:
                shutil.rmtree(path)
        return whole[-1] if whole else None

    def complete(self, checkpoint: Path, *, step: int) -> None:
        """Makes a checkpoint whole: all its files reach the disk, then the mark."""
        for path in checkpoint.rglob("*"):
            if path.is_file():
                _sync(path)
        write_json(checkpoint / COMPLETE, {"step": step})

    def prune(self, keep: Iterable[Path]) -> None:
        """Removes all checkpoints but some. The mark goes first, so that none is left whole in name alone."""
        kept = {path.name for path in keep}
        for path in self._all():
            if path.name not in kept:
                (path / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(path)

    def place_model(self, made: Path) -> None:
        """Moves a model's files, which lie in a folder on the same disk, to the top."""
        for path in sorted(made.iterdir()):
            target = self.out / path.name
            if target.is_dir():
                shutil.rmtree(target)
            if path.is_file():
                # Weights are written for their owner alone; a service may run as another user.
                path.chmod(0o644)
            os.replace(path, target)
        made.rmdir()

    def close(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _all(self) -> list[Path]:
        return [path for path in self.checkpoints.glob("checkpoint-*") if path.is_dir()]

    def _clear(self) -> None:
        """Removes all but what is named by what it was made from, which another run may use."""
        of_run = self.training.iterdir() if self.training.is_dir() else ()
        for path in [*self.out.iterdir(), *of_run]:
            if path == self.training or path.name.endswith(".jsonl.gz"):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def step_of(checkpoint: Path) -> int | None:
    """The optimizer step that a checkpoint was made after, by its name."""
    matched = _NAME.fullmatch(checkpoint.name)
    return int(matched[1]) if matched else None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is whole or not there, also after a loss of power."""
    half = path.with_name(f"{path.name}.half")
    with written(path):
        half.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        _sync(half)
    os.replace(half, path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataLoss(f"{path} cannot be read: it is not JSON") from error
    return dict(value)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    # What was written is read back as JSON, where tuples are lists and so on.
    here = json.loads(json.dumps(here))
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    return ", ".join(f"{name} ({_short(there.get(name))} there, {_short(here.get(name))} here)" for name in names)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
