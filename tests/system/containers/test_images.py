"""What each image is: its size, whom it runs as, what it can compute, and how it ends."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.system.containers.computing import CROSS, computed
from tests.system.containers.engine import SERVICES, docker, inspected, why_no_engine
from tests.unit.inference.conftest import folders

__all__ = ["folders"]

pytestmark = [pytest.mark.docker, pytest.mark.skipif(why_no_engine() != "", reason=why_no_engine())]

LARGEST_MB = {"gateway": 250, "index": 200, "embedder": 900, "reranker": 900}
ARCHITECTURES = ("bert", "roberta", "distilbert", "minilm-score", "roberta-score")
COMPUTE = Path(__file__).with_name("computing.py")
RESULTS_APART = 2e-4
"""Largest difference of float32 results between the image and this installation."""


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_no_larger_than_it_may_be(tag: str, service: str) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", f"winnow-{service}:{tag}"))
    assert size <= LARGEST_MB[service] * 1_000_000


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_in_an_image_changes_who_one_is_or_installs_anything(tag: str, service: str) -> None:
    image = f"winnow-{service}:{tag}"
    run = ("run", "--rm", "--entrypoint", "sh", image, "-c")
    assert docker(*run, "id -u") == "10001"
    assert docker(*run, "find / -xdev -type f -perm /6000 2>/dev/null; true") == ""
    assert docker(*run, "for tool in pip apt-get dpkg perl gcc; do command -v $tool; done; true") == ""
    assert docker(*run, "python -c 'import pip' 2>&1 || true").endswith("No module named 'pip'")


def test_only_a_model_service_holds_what_computes_models(tag: str) -> None:
    find = "import importlib.util as u; print(*[n for n in {names!r} if u.find_spec(n)])"
    for service in SERVICES:
        names = ["torch", "openvino", "transformers", "qdrant_client", "qdrant_edge", "nncf", "pytest", "winnow_lab"]
        held = docker(
            "run", "--rm", "--entrypoint", "python", f"winnow-{service}:{tag}", "-c", find.format(names=names)
        )
        wanted = {"gateway": "qdrant_client", "index": "qdrant_client qdrant_edge"}
        assert held == wanted.get(service, "torch openvino transformers"), service


@pytest.fixture(scope="module")
def models(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that no image has, of several architectures."""
    place = tmp_path_factory.mktemp("models")
    for name in ARCHITECTURES:
        folders(name).rename(place / name)
    for folder in (place, *place.rglob("*")):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    return place


def test_an_image_converts_models_that_it_does_not_hold_and_computes_what_is_computed_outside(
    tag: str, models: Path
) -> None:
    def named(name: str, place: Path) -> str:
        return f"{CROSS if '-' in name else ''}{place / name}"

    inside = _inside(tag, "embedder", *(named(name, Path("/models")) for name in ARCHITECTURES), mount=models)
    for name in ARCHITECTURES:
        engine, rows = inside[named(name, Path("/models"))]
        outside_engine, expected = computed(named(name, models))
        assert engine == outside_engine, name
        assert np.allclose(rows, expected, atol=RESULTS_APART), name


@pytest.mark.parametrize(("service", "model"), [("embedder", ""), ("reranker", f"{CROSS}models/reranker")])
def test_the_default_model_computes_in_the_image_what_it_computes_outside(tag: str, service: str, model: str) -> None:
    engine, rows = _inside(tag, service, model)[model]
    outside_engine, expected = computed(model)
    assert engine == outside_engine == "openvino"
    assert np.allclose(rows, expected, atol=RESULTS_APART)


def test_the_reranker_comes_with_its_model_converted(tag: str) -> None:
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", f"winnow-reranker:{tag}")
    try:
        deadline = time.monotonic() + 120
        while '"serving"' not in docker("logs", container):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert "converting" not in docker("logs", container)
    finally:
        docker("rm", "--force", "--volumes", container)


def test_a_container_that_is_told_to_stop_while_it_loads_its_model_ends_at_once(tag: str) -> None:
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", f"winnow-embedder:{tag}")
    try:
        deadline = time.monotonic() + 60
        while not _catches_sigterm(container):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        began = time.monotonic()
        docker("stop", "--time", "60", container)
        assert time.monotonic() - began < 30
        assert inspected(container)["State"]["ExitCode"] == 128 + signal.SIGTERM
        assert "listening" not in docker("logs", container)
    finally:
        docker("rm", "--force", "--volumes", container)


def _inside(
    tag: str, service: str, *models: str, mount: Path | None = None
) -> dict[str, tuple[str, Sequence[Sequence[float]]]]:
    """Model → (engine, results), computed in the service's image."""
    mounted = ["--volume", f"{mount}:/models:ro"] if mount else []
    # fmt: off
    said = docker(
        "run", "--rm", "--interactive", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", *mounted,
        "--entrypoint", "python", f"winnow-{service}:{tag}", "-", *models,
        stdin=COMPUTE.read_text(), timeout=400,
    )
    # fmt: on
    return {model: (engine, rows) for model, engine, rows in json.loads(said.splitlines()[-1])}


def _catches_sigterm(container: str) -> bool:
    status = docker("exec", container, "cat", "/proc/1/status")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))
