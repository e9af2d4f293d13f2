"""What a person does with the manifests: a kustomization of their own around them, a pod to restore a snapshot from."""

import os
import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

from tests.unit.deploy.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    container,
    environment,
    of_kind,
    overlay,
    pod,
    render,
    workloads,
)

README = (KUBERNETES / "README.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((ROOT / "services/gateway/pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_kustomization_of_the_readme_takes_images_from_a_registry_and_components(name: str, tmp_path: Path) -> None:
    shown, components = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    shown = (shown + components).replace("overlays/cpu", f"overlays/{name}")
    (tmp_path / "my-winnow").mkdir()
    here = os.path.relpath(ROOT / "deploy", tmp_path / "my-winnow")
    (tmp_path / "my-winnow" / "kustomization.yaml").write_text(shown.replace("../deploy", here))
    objects = render(tmp_path / "my-winnow")
    images = {container(each)["image"] for each in workloads(objects).values()}
    assert all(image.startswith("REGISTRY/winnow-") for image in images)
    assert {image.rpartition(":")[2] for image in images} <= {VERSION, f"{VERSION}-gpu"}
    assert "WINNOW_GATEWAY_API_KEYS_FILE" in environment(workloads(objects)["gateway"])


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_the_pod_that_restores_a_snapshot_is_the_indexs_without_the_index(version: str) -> None:
    (restoring,) = render(KUBERNETES / "restore")
    kubernetes_validate.validate(restoring, version, strict=True)
    index = of_kind(overlay("embedded"), "StatefulSet")["index"]
    serving, [held] = container(index), restoring["spec"]["containers"]
    assert restoring["metadata"]["namespace"] == index["metadata"]["namespace"]
    assert restoring["metadata"]["labels"]["app.kubernetes.io/name"] != "index", "it gets no calls"
    for same in ("securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert restoring["spec"][same] == pod(index)[same]
    for same in ("image", "securityContext", "volumeMounts"):
        assert held[same] == serving[same]
    assert {each["name"]: each["value"] for each in held["env"]}.items() <= environment(index).items()
    [claim] = index["spec"]["volumeClaimTemplates"]
    [data] = [each for each in restoring["spec"]["volumes"] if each["name"] == claim["metadata"]["name"]]
    name = f"{claim['metadata']['name']}-{index['metadata']['name']}-0"
    assert data["persistentVolumeClaim"]["claimName"] == name
