"""A stack of four fakes: real processes, no models."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from winnow_client.cli.processes_stack import StackConfig
from winnow_client.cli.supervision import Backoff

FAKES = Path(__file__).with_name("services")


@dataclass(frozen=True)
class Switches:
    """Makes the fakes fail."""

    directory: Path

    def on(self, switch: str, sentence: str = "") -> None:
        """Turns a switch on: "refuse.index"."""
        (self.directory / switch).write_text(sentence)

    def off(self, switch: str) -> None:
        """Turns it off."""
        (self.directory / switch).unlink()


@pytest.fixture
def switches(tmp_path: Path) -> Switches:
    directory = tmp_path / "switches"
    directory.mkdir()
    return Switches(directory)


@pytest.fixture
def fake_config(tmp_path: Path, switches: Switches) -> Callable[..., StackConfig]:
    """Makes the configuration of a stack of fakes, on free ports."""

    def make(**changes: object) -> StackConfig:
        settings: dict[str, object] = {
            "data": tmp_path / "data",
            **dict.fromkeys(("gateway_port", "index_port", "embedder_port", "reranker_port"), 0),
            "model": "embedder",
            "reranker_model": "reranker",
            "drain_seconds": 2.0,
            "ready_seconds": 40.0,
            "modules": dict.fromkeys(("gateway", "index", "embedder", "reranker"), "fake_service"),
            "environment": {
                "FAKE_SWITCHES": str(switches.directory),
                "PYTHONPATH": os.pathsep.join(filter(None, (str(FAKES), os.environ.get("PYTHONPATH")))),
            },
            "backoff": Backoff(initial_seconds=0.05, maximum_seconds=0.4),
            **changes,
        }
        return StackConfig(**settings)  # type: ignore[arg-type]

    return make
