"""The Kubernetes manifests are what the API accepts, and say what is so: settings, ports, versions, names, metrics.

Rendered by kubectl itself and checked against the API's own schemas, both offline; nothing here needs a cluster.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.unit.deploy.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    SETTINGS,
    Manifest,
    container,
    each_workload,
    environment,
    of_kind,
    overlay,
    patience,
    pod,
    probes,
    render,
    workloads,
)
from winnow_client.cli.sizing import Workload, index_size
from winnow_rpc.serving import LIVENESS
from winnow_rpc.settings import read_settings

OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""Versions of Kubernetes: the README says from which on these may be used."""
VERSION = tomllib.loads((ROOT / "services/gateway/pyproject.toml").read_text())["project"]["version"]
METRICS_PORT = 9464
METRICS = {"winnow_queue_tokens"}
"""What an autoscaler may count."""

SECURED = {
    "cpu": ("components/tls", "components/tls-qdrant", "components/api-keys"),
    "embedded": ("components/tls", "components/tls-index", "components/api-keys"),
}
"""Overlay → the components that leave nothing open."""

# Metrics and TLS come with changes of their own.
needs_metrics = pytest.mark.skipif(importlib.util.find_spec("winnow_rpc.metrics") is None, reason="no metrics here yet")
needs_tls = pytest.mark.skipif(importlib.util.find_spec("winnow_rpc.tls") is None, reason="no TLS here yet")

every_overlay = pytest.mark.parametrize("name", OVERLAYS)
every_workload = pytest.mark.parametrize(
    ("service", "workload"),
    [pytest.param(service, workload, id=f"{name}-{service}") for name, service, workload in each_workload()],
)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@every_overlay
def test_every_object_is_what_the_api_accepts(name: str, version: str) -> None:
    objects = overlay(name)
    assert len(objects) > 15
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_object_would_be_noticed() -> None:
    [gateway] = [
        each for each in overlay("cpu") if each["kind"] == "Deployment" and each["metadata"]["name"] == "gateway"
    ]
    container(gateway)["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(gateway, NEWEST, strict=True)


@every_overlay
def test_everything_lies_in_one_namespace_that_enforces_the_restricted_profile(name: str) -> None:
    objects = overlay(name)
    [namespace] = of_kind(objects, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"}
    assert others == {namespace["metadata"]["name"]}


@every_workload
def test_pods_keep_to_the_restricted_profile_and_to_what_the_images_need(service: str, workload: Manifest) -> None:
    spec, main = pod(workload), container(workload)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert main["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert "--uid 10001" in dockerfile
    mounted = {mount["mountPath"] for mount in main["volumeMounts"]}
    written = {"gateway": set(), "index": {"/var/lib/winnow"}}.get(service, {"/var/cache/winnow"})
    assert mounted == {"/tmp"} | written
    assert all(path in dockerfile for path in written)


@needs_metrics
@every_workload
def test_every_variable_is_a_setting_with_a_value_that_the_service_takes(
    service: str, workload: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(workload)
    names = {variable.removeprefix(f"WINNOW_{service.upper()}_").lower() for variable in given}
    assert names <= _read(service, given, monkeypatch).model_fields_set


@every_overlay
def test_ports_are_the_services_own_and_lead_from_one_to_the_other(name: str) -> None:
    objects = overlay(name)
    services = of_kind(objects, "Service")
    assert set(services) == set(workloads(objects))
    for service, workload in workloads(objects).items():
        port = SETTINGS[service].model_fields["port"].default
        assert {each["name"]: each["containerPort"] for each in container(workload)["ports"]} == {
            "grpc": port,
            "metrics": METRICS_PORT,
        }
        assert [each["port"] for each in services[service]["spec"]["ports"]] == [port]
        assert services[service]["spec"]["ports"][0]["targetPort"] == "grpc"
        # Headless, or round robin in the caller would see one address.
        assert services[service]["spec"]["clusterIP"] == "None"
        assert (
            services[service]["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        )
        for probe in probes(workload).values():
            assert probe["grpc"]["port"] == port
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == environment(workload)[f"WINNOW_{service.upper()}_METRICS_PORT"]
        assert annotations["prometheus.io/port"] == str(METRICS_PORT)
    gateway = environment(workloads(objects)["gateway"])
    index = "index" if name == "embedded" else "qdrant"
    assert gateway["WINNOW_GATEWAY_EMBEDDER"] == "dns:///embedder:50051"
    assert gateway["WINNOW_GATEWAY_RERANKER"] == "dns:///reranker:50052"
    assert gateway["WINNOW_GATEWAY_INDEX"] == f"{index}:6334"


@every_workload
def test_images_are_of_this_version(service: str, workload: Manifest) -> None:
    assert re.fullmatch(rf"winnow-{service}:{re.escape(VERSION)}(-gpu)?", container(workload)["image"])


def test_the_gpu_overlay_asks_for_a_gpu_and_its_images_for_the_model_services_alone() -> None:
    for service, workload in workloads(overlay("gpu")).items():
        resources = container(workload)["resources"]
        on_gpu = service in ("embedder", "reranker")
        assert (
            resources["limits"].get("nvidia.com/gpu")
            == resources["requests"].get("nvidia.com/gpu")
            == (1 if on_gpu else None)
        )
        assert container(workload)["image"].endswith("-gpu") == on_gpu
    for overlay_ in ("cpu", "embedded"):
        for workload in workloads(overlay(overlay_)).values():
            assert "nvidia.com/gpu" not in container(workload)["resources"]["limits"]


@pytest.mark.parametrize("service", ["embedder", "reranker"])
def test_a_model_on_processors_may_use_exactly_the_cores_that_it_is_promised(service: str) -> None:
    resources = container(workloads(overlay("cpu"))[service])["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"] == "2"


@every_workload
def test_every_container_has_bounds(service: str, workload: Manifest) -> None:
    resources = container(workload)["resources"]
    assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["requests"])
    assert {"memory", "ephemeral-storage"} <= set(resources["limits"])


@every_workload
def test_a_pod_has_the_time_to_drain(service: str, workload: Manifest) -> None:
    drain = float(environment(workload)[f"WINNOW_{service.upper()}_DRAIN_SECONDS"])
    before = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod(workload)["terminationGracePeriodSeconds"] >= before + drain + 10


@every_workload
def test_a_frozen_pod_is_started_anew_and_a_slow_or_bereft_one_is_not(service: str, workload: Manifest) -> None:
    asked = probes(workload)
    # Out of DNS soon, after two failures; started anew much later, and never while it starts.
    assert patience(asked["readiness"]) <= 10
    assert 45 <= patience(asked["liveness"]) <= 300
    assert "service" not in asked["readiness"]["grpc"]
    if service in ("embedder", "reranker"):
        # Its own work counts: a stuck device has to be let go of. One probe of a slow model may take so long.
        longest = SETTINGS[service].model_fields["probe_timeout_seconds"].default
        assert patience(asked["liveness"]) > 5 * longest
        assert "service" not in asked["liveness"]["grpc"]
        assert patience(asked["startup"]) > 300
    else:
        # That of others does not: to start a gateway anew does not bring back the index.
        assert asked["liveness"]["grpc"]["service"] == LIVENESS


@every_overlay
def test_every_stateless_service_is_scaled_spread_and_kept_through_disruptions(name: str) -> None:
    objects = overlay(name)
    deployments = of_kind(objects, "Deployment")
    assert set(deployments) == {"gateway", "embedder", "reranker"}
    scalers, budgets = of_kind(objects, "HorizontalPodAutoscaler"), of_kind(objects, "PodDisruptionBudget")
    for service, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert "replicas" not in deployment["spec"], "their number is the autoscaler's"
        target = scalers[service]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"], target["apiVersion"]) == ("Deployment", service, "apps/v1")
        assert 2 <= scalers[service]["spec"]["minReplicas"] < scalers[service]["spec"]["maxReplicas"]
        assert budgets[service]["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert budgets[service]["spec"]["maxUnavailable"] == 1
        [spread] = pod(deployment)["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


@every_overlay
def test_every_metric_of_an_autoscaler_is_one_that_the_adapter_makes_of_ours(name: str) -> None:
    adapter = yaml.safe_load((KUBERNETES / "monitoring/prometheus-adapter-values.yaml").read_text())
    made = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    assert made == METRICS
    for scaler in of_kind(overlay(name), "HorizontalPodAutoscaler").values():
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods":
                assert metric["pods"]["metric"]["name"] in made
                labels = metric["pods"]["metric"].get("selector", {}).get("matchLabels", {})
                assert labels.get("priority") in (None, "interactive", "bulk")
                assert set(labels) <= {"priority"}
            else:
                assert metric["resource"]["name"] == "cpu"


@every_overlay
def test_only_the_gateway_may_call_the_services_behind_it(name: str) -> None:
    policies = of_kind(overlay(name), "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    index = "index" if name == "embedded" else "qdrant"
    behind = {"embedder": 50051, "reranker": 50052, index: 6334}
    assert set(policies) == {"default-deny", "dns", "monitoring", "gateway", *behind}
    for service, port in behind.items():
        callers = [
            peer
            for rule in policies[service]["spec"]["ingress"]
            for peer in rule["from"]
            if port in [each["port"] for each in rule["ports"]]
        ]
        gateway = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}
        itself = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": service}}}
        assert gateway in callers
        assert all(caller in (gateway, itself) for caller in callers)
    allowed = {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for rule in policies["gateway"]["spec"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
    }
    assert allowed == set(behind.items())
    [scraped] = policies["monitoring"]["spec"]["ingress"]
    assert scraped["ports"] == [{"protocol": "TCP", "port": METRICS_PORT}]


def test_the_index_is_one_process_with_a_volume_that_outlives_it() -> None:
    objects = overlay("embedded")
    index = of_kind(objects, "StatefulSet")["index"]
    assert index["spec"]["replicas"] == 1
    assert set(index["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    [claim] = index["spec"]["volumeClaimTemplates"]
    folders = [environment(index)[f"WINNOW_INDEX_{name}_DIR"] for name in ("DATA", "SNAPSHOTS")]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(index)["volumeMounts"]}
    assert all(folder.startswith(f"{mounts[claim['metadata']['name']]}/") for folder in folders)


def test_qdrants_chart_is_given_the_version_and_the_name_that_the_rest_counts_on() -> None:
    values: dict[str, Any] = yaml.safe_load((KUBERNETES / "qdrant/values.yaml").read_text())
    image = "qdrant/qdrant:" + values["image"]["tag"] + "-unprivileged" * values["image"]["useUnprivilegedImage"]
    assert f"image: {image}" in (ROOT / "docker-compose.yml").read_text()
    command = (KUBERNETES / "qdrant/values.yaml").read_text().partition("helm upgrade")[2]
    assert command.startswith(" --install qdrant qdrant ")
    assert re.search(r"--version \d+\.\d+\.\d+ ", command)
    assert "--namespace winnow" in command
    assert values["config"]["storage"]["collection"]["replication_factor"] <= values["replicaCount"]


def test_qdrants_chart_is_given_tls_and_a_key_where_the_gateway_expects_them() -> None:
    values: dict[str, Any] = yaml.safe_load((KUBERNETES / "qdrant/values.tls.yaml").read_text())
    assert values["config"]["service"] == {"enable_tls": True}
    assert values["config"]["cluster"]["p2p"] == {"enable_tls": True}
    [volume], [mount] = values["additionalVolumes"], values["additionalVolumeMounts"]
    assert (volume["name"], mount["readOnly"]) == (mount["name"], True)
    files = {name: f"{mount['mountPath']}/{file}" for name, file in
             {"cert": "tls.crt", "key": "tls.key", "ca_cert": "ca.crt"}.items()}  # fmt: skip
    assert values["config"]["tls"] == files
    # The chart calls its Secret by the release, which is qdrant.
    assert values["apiKey"] is True
    text = (KUBERNETES / "components/tls-qdrant/gateway.yaml").read_text()
    [secret] = [each["value"]["secret"] for each in yaml.safe_load(text) if "secret" in each["value"]]
    assert (secret["secretName"], [item["key"] for item in secret["items"]]) == ("qdrant-apikey", ["api-key"])
    # The same chart, and these values after the others.
    commands = [
        re.sub(r"[\s#\\]+", " ", (KUBERNETES / "qdrant" / name).read_text().partition("helm upgrade")[2]).split()
        for name in ("values.yaml", "values.tls.yaml")
    ]
    end = commands[0].index("--values") + 2
    assert commands[1][: end + 2] == [*commands[0][:end], "--values", "deploy/kubernetes/qdrant/values.tls.yaml"]


@pytest.fixture(params=SECURED)
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    """An overlay with all components that are for it, as a person would put them together."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / request.param, tmp_path)],
        "components": [os.path.relpath(KUBERNETES / name, tmp_path) for name in SECURED[request.param]],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(tmp_path)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_the_components_make_is_accepted_too(secured: list[Manifest], version: str) -> None:
    for each in secured:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_secured_service_finds_every_file_that_its_settings_name(secured: list[Manifest]) -> None:
    keys = {"tls.crt", "tls.key", "ca.crt"}
    for service, workload in workloads(secured).items():
        volumes = {each["name"]: each for each in pod(workload)["volumes"]}
        mounts = {each["mountPath"]: each for each in container(workload)["volumeMounts"]}
        files = [value for value in environment(workload).values() if value.startswith("/etc/winnow/")]
        assert len(files) >= 3
        for file in files:
            folder, _, name = file.rpartition("/")
            mount = mounts[folder]
            assert mount["readOnly"]
            assert "subPath" not in mount, "a file that is mounted alone never changes"
            secret = volumes[mount["name"]]["secret"]
            holds = {f"{service}-tls": keys, "gateway-api-keys": {"keys.json"}, "qdrant-apikey": {"api-key"}}
            assert name in holds[secret["secretName"]]


def test_a_secured_service_is_not_asked_in_plain_text(secured: list[Manifest]) -> None:
    for service, workload in workloads(secured).items():
        for probe in probes(workload).values():
            # The kubelet's own probes of gRPC know no TLS, those of HTTP show no certificate.
            asked = probe["exec"]["command"]
            assert asked[:3] == ["python", "/opt/winnow/healthcheck.py", service]
            assert asked[3:] in ([], [LIVENESS])
        assert "COPY deploy/healthcheck.py" in (ROOT / "deploy/Dockerfile").read_text()


@needs_metrics
@needs_tls
def test_a_secured_service_takes_its_settings(secured: list[Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    for service, workload in workloads(secured).items():
        settings = _read(service, environment(workload), monkeypatch)
        assert str(settings.tls_certificate) == "/etc/winnow/tls/tls.crt"
        assert (settings.tls_client_ca is None) == (service == "gateway")
        if service == "gateway":
            assert settings.backend_client_tls is not None
            # The index is shown a certificate, Qdrant a key.
            embedded = "index" in workloads(secured)
            assert settings.index_client_tls is not None
            assert (settings.index_client_tls.certificate is not None) == embedded
            assert (settings.index_api_key_file is None) == embedded
        else:
            # A backup shows the index's own certificate.
            assert set(settings.tls_client_names) == {"gateway", *({"index"} if service == "index" else ())}


def test_the_index_has_the_memory_and_the_disk_that_the_plan_says_for_a_million_documents() -> None:
    size = index_size(Workload(documents=1_000_000))
    index = of_kind(overlay("embedded"), "StatefulSet")["index"]
    assert size.memory_while_building <= _bytes(container(index)["resources"]["limits"]["memory"])
    [claim] = index["spec"]["volumeClaimTemplates"]
    volume = _bytes(claim["spec"]["resources"]["requests"]["storage"])
    assert size.disk_while_building + 3 * size.snapshot <= volume


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi")) * 2**30


def _read(service: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that a service reads from these variables. Fails if one of them is none."""
    prefix = f"WINNOW_{service.upper()}_"
    for variable, value in given.items():
        assert variable.removeprefix(prefix).lower() in SETTINGS[service].model_fields, variable
        monkeypatch.setenv(variable, value)
    return read_settings(SETTINGS[service], prefix=prefix, program="test", argv=[])
