"""What can be known of the images and the Compose files without starting a container."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from tests.system.containers.engine import EMBEDDED, ROOT, SECURE, SECURE_EMBEDDED, merged, why_no_compose

needs_compose = pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose())


class _ComposeLoader(yaml.SafeLoader):
    """Reads a Compose file without merging it with another."""


# Compose's own tags, which say how a file is merged with the one before it: what they stand before is kept as it is.
_ComposeLoader.add_multi_constructor("!", lambda loader, _tag, node: _plain(loader, node))


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None


OVERLAYS = (
    "embedded",
    "gpu",
    "cluster",
    "observability",
    "observability.embedded",
    "model-upgrade",
    "secure",
    "secure.embedded",
)
FILES = ("docker-compose.yml", *(f"deploy/compose.{name}.yml" for name in OVERLAYS))
GPU = ("docker-compose.yml", "deploy/compose.gpu.yml")
CLUSTER = ("docker-compose.yml", "deploy/compose.cluster.yml")
OBSERVABILITY = ("docker-compose.yml", "deploy/compose.observability.yml")
MODEL_UPGRADE = ("docker-compose.yml", "deploy/compose.model-upgrade.yml")
NODES = ("qdrant", "qdrant-2", "qdrant-3")


@pytest.mark.parametrize("file", EMBEDDED)
def test_every_target_that_compose_builds_is_in_the_dockerfile(file: str) -> None:
    services = yaml.load((ROOT / file).read_text(), Loader=_ComposeLoader)["services"]
    built = {name: service["build"] for name, service in services.items() if service and "build" in service}
    assert built
    for name, build in built.items():
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        stages = re.findall(r"^FROM\s+\S+\s+AS\s+(\S+)\s*$", dockerfile, flags=re.MULTILINE | re.IGNORECASE)
        assert build["target"] in stages, name
        assert build["target"] == name


@needs_compose
def test_the_stack_alone_has_a_qdrant_server() -> None:
    stack = merged("docker-compose.yml")
    assert set(stack["services"]) == {"embedder", "reranker", "gateway", "qdrant"}
    assert re.fullmatch(r"qdrant/qdrant:v\d+\.\d+\.\d+(-unprivileged)?", stack["services"]["qdrant"]["image"])
    assert _needed_healthy(stack) == {"embedder", "reranker", "qdrant"}
    assert stack["services"]["gateway"]["environment"]["WINNOW_GATEWAY_INDEX"] == "qdrant:6334"


@needs_compose
def test_the_embedded_overlay_puts_the_index_in_the_place_of_qdrant() -> None:
    stack = merged(*EMBEDDED)
    assert set(stack["services"]) == {"embedder", "reranker", "gateway", "index"}
    assert set(stack["volumes"]) == {"hub", "index"}
    assert _needed_healthy(stack) == {"embedder", "reranker", "index"}
    assert stack["services"]["gateway"]["environment"]["WINNOW_GATEWAY_INDEX"] == "index:6334"
    assert {Path(service["build"]["context"]) for service in stack["services"].values()} == {ROOT}


@needs_compose
@pytest.mark.parametrize(
    "files",
    [EMBEDDED[:1], EMBEDDED, GPU, (*EMBEDDED, GPU[1]), CLUSTER, MODEL_UPGRADE, SECURE, SECURE_EMBEDDED],
    ids=["alone", "embedded", "gpu", "embedded and gpu", "cluster", "model upgrade", "secure", "secure and embedded"],
)
def test_every_service_is_confined_and_the_model_services_can_be_scaled(files: tuple[str, ...]) -> None:
    services = merged(*files)["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["restart"] == "unless-stopped", name
        assert "container_name" not in service, name
    assert [name for name, service in services.items() if service.get("ports")] == ["gateway"]
    assert [port["host_ip"] for port in services["gateway"]["ports"]] == ["127.0.0.1"]


@needs_compose
def test_the_example_of_settings_holds_the_defaults_and_all_of_them() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    for files in (EMBEDDED, GPU, CLUSTER, OBSERVABILITY, MODEL_UPGRADE, SECURE):
        assert merged(*files, **example) == merged(*files)
    read = {name for file in FILES for name in re.findall(r"\$\{(\w+)", (ROOT / file).read_text())}
    assert read == set(example)


@needs_compose
def test_the_gpu_overlay_gives_each_model_service_a_gpu_and_an_image_of_its_own() -> None:
    services = merged(*GPU, WINNOW_RERANKER_GPU="1", WINNOW_GPU_TORCH_INDEX="https://example.org/cuda")["services"]
    for name, gpu in (("embedder", "0"), ("reranker", "1")):
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "device_ids": [gpu], "capabilities": ["gpu"]}]
        assert services[name]["image"].endswith("-gpu")
        assert services[name]["build"]["target"] == name
        assert services[name]["build"]["args"]["TORCH_INDEX"] == "https://example.org/cuda"
    assert not services["gateway"]["image"].endswith("-gpu")


@needs_compose
def test_the_overlay_for_another_model_runs_both_embedders_and_the_gateway_knows_which_is_which() -> None:
    services = merged(*MODEL_UPGRADE, WINNOW_EMBEDDER_NEXT_MODEL="owner/new")["services"]
    assert set(services) == {"embedder", "embedder-next", "reranker", "gateway", "qdrant"}
    assert services["embedder"]["environment"]["WINNOW_EMBEDDER_MODEL"] == ""
    assert services["embedder-next"]["environment"]["WINNOW_EMBEDDER_MODEL"] == "owner/new"
    assert services["embedder-next"]["image"] == services["embedder"]["image"]
    told = services["gateway"]["environment"]
    assert told["WINNOW_GATEWAY_EMBEDDER"] == "dns:///embedder-next:50051"
    assert told["WINNOW_GATEWAY_EMBEDDER_FORMER"] == "dns:///embedder:50051"


@needs_compose
def test_the_cluster_overlay_has_three_nodes_that_find_each_other_and_two_of_each_model_service() -> None:
    stack = merged(*CLUSTER)
    services = stack["services"]
    assert set(services) == {"embedder", "reranker", "gateway", *NODES}
    for node in NODES:
        command = services[node]["command"]
        assert command[command.index("--uri") + 1] == f"http://{node}:6335"
        assert ("--bootstrap" in command) == (node != "qdrant")
        assert services[node]["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert services[node]["networks"]["default"]["aliases"] == ["qdrant-nodes"]
        assert [volume["source"] for volume in services[node]["volumes"]] == [node]
        assert services[node]["image"] == services["qdrant"]["image"]
    assert _needed_healthy(stack) == {"embedder", "reranker", *NODES}
    assert [services[name]["deploy"]["replicas"] for name in ("embedder", "reranker")] == [2, 2]
    told = services["gateway"]["environment"]
    assert told["WINNOW_GATEWAY_INDEX"] == "qdrant-nodes:6334"
    spread = {name: told[f"WINNOW_GATEWAY_INDEX_{name}"] for name in ("SHARDS", "REPLICAS", "WRITE_CONSISTENCY")}
    assert spread == {"SHARDS": "3", "REPLICAS": "2", "WRITE_CONSISTENCY": "1"}


@pytest.mark.parametrize(
    ("service", "holds", "lacks"),
    [
        (
            "gateway",
            {"qdrant-client", "grpcio", "prometheus-client", "opentelemetry-sdk"},
            {"torch", "transformers", "sentence-transformers", "qdrant-edge-py"},
        ),
        ("index", {"qdrant-edge-py", "grpcio"}, {"torch", "transformers", "sentence-transformers"}),
        ("embedder", {"torch", "grpcio"}, {"qdrant-client", "qdrant-edge-py"}),
        ("reranker", {"torch", "grpcio"}, {"qdrant-client", "qdrant-edge-py"}),
    ],
)
def test_an_image_holds_the_requirements_of_its_service_alone(service: str, holds: set[str], lacks: set[str]) -> None:
    third_party = {re.split(r"[^\w.-]", line)[0] for line in _requirements("third-party", f"services/{service}")}
    assert holds <= third_party
    assert not lacks & third_party
    assert not any(name.startswith("winnow") for name in third_party)
    assert {"winnow-rpc", f"winnow-{service}"} <= set(_requirements("house", f"services/{service}"))


def test_what_the_dockerfile_copies_is_let_through_to_the_engine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line[1:] for line in ignored if line.startswith("!")]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(pattern) or source.startswith(f"{pattern}/") for pattern in let_through), source


@pytest.mark.parametrize(("answer", "status"), [("200 OK", 0), ("503 Service Unavailable", 1)])
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_health_check_of_qdrant_reads_the_status_that_readyz_answers(answer: str, status: int) -> None:
    services = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=_ComposeLoader)["services"]
    kind, *command = services["qdrant"]["healthcheck"]["test"]
    assert kind == "CMD"
    with _answering(int(answer.split(maxsplit=1)[0])) as port:
        # `$$` is Compose's way to write one `$`.
        here = [part.replace("$$", "$").replace("6333", str(port)) for part in command]
        assert subprocess.run(here, timeout=30, check=False).returncode == status


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_health_check_of_qdrant_fails_where_nothing_listens() -> None:
    services = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=_ComposeLoader)["services"]
    with _answering(200) as port:
        pass
    here = [
        part.replace("$$", "$").replace("6333", str(port)) for part in services["qdrant"]["healthcheck"]["test"][1:]
    ]
    assert subprocess.run(here, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode != 0


@pytest.mark.parametrize(
    ("serving", "status", "says"), [(True, 0, "SERVING"), (False, 1, "NOT_SERVING"), (None, 1, "UNAVAILABLE")]
)
def test_the_health_check_of_an_image_passes_only_for_a_service_that_serves(
    serving: bool | None, status: int, says: str
) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    answer = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    health.set("", answer)
    server.start()
    if serving is None:
        server.stop(None).wait()
    try:
        ended = subprocess.run(
            [sys.executable, "deploy/healthcheck.py", "index"],
            cwd=ROOT,
            env={"WINNOW_INDEX_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.stop(None).wait()
    assert ended.returncode == status
    assert ended.stdout.strip().endswith(f" {says}")


def _needed_healthy(stack: dict[str, Any]) -> set[str]:
    needed = stack["services"]["gateway"]["depends_on"]
    return {name for name, how in needed.items() if how["condition"] == "service_healthy"}


def _requirements(kind: str, folder: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "deploy/requirements.py", str(ROOT), kind, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split("\n")[:-1]


@contextmanager
def _answering(status: int) -> Iterator[int]:
    """The port of an HTTP server that answers /readyz with this status and anything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
