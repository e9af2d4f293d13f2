"""Renders the Kubernetes manifests as `kubectl apply -k` would, and finds its way in them."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from winnow_embedder.settings import EmbedderSettings
from winnow_gateway.settings import GatewaySettings
from winnow_index.settings import IndexSettings
from winnow_reranker.settings import RerankerSettings

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = ("cpu", "gpu", "embedded")
SETTINGS: dict[str, type[Any]] = {
    "gateway": GatewaySettings,
    "embedder": EmbedderSettings,
    "reranker": RerankerSettings,
    "index": IndexSettings,
}

Manifest = dict[str, Any]


@functools.cache
def _rendered(folder: Path) -> str:
    ended = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, ended.stderr  # it warns here of what is deprecated
    return ended.stdout


def render(folder: Path) -> list[Manifest]:
    """Every object of a kustomization, fresh."""
    return [each for each in yaml.safe_load_all(_rendered(folder)) if each]


def overlay(name: str) -> list[Manifest]:
    """Every object of an overlay."""
    return render(KUBERNETES / "overlays" / name)


def of_kind(objects: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Name → object, of these kinds."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def workloads(objects: list[Manifest]) -> dict[str, Manifest]:
    """Service → its Deployment or StatefulSet."""
    return of_kind(objects, "Deployment", "StatefulSet")


def pod(workload: Manifest) -> Manifest:
    """The spec of its pods."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    """Its only container."""
    [only] = pod(workload)["containers"]
    assert not pod(workload).get("initContainers")
    found: Manifest = only
    return found


def environment(workload: Manifest) -> dict[str, str]:
    """Variable → value."""
    return {each["name"]: each["value"] for each in container(workload).get("env", [])}


def probes(workload: Manifest) -> dict[str, Manifest]:
    """Kind of probe → probe."""
    return {kind: container(workload)[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}


def patience(probe: Manifest) -> float:
    """Seconds until it gives up, at least."""
    return float(probe["periodSeconds"] * (probe["failureThreshold"] - 1))


def each_workload() -> Iterator[tuple[str, str, Manifest]]:
    """Overlay, service and workload, of all."""
    for name in OVERLAYS:
        for service, workload in workloads(overlay(name)).items():
            yield name, service, workload
