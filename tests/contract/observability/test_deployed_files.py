"""The dashboard, the alerts and the autoscalers name metrics that the services export; the alerts fire when they
should."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.observability.conftest import Services
from tests.system.containers.engine import merged, why_no_compose

ROOT = Path(__file__).parents[3]
OBSERVABILITY = ROOT / "deploy" / "observability"
DASHBOARD = OBSERVABILITY / "dashboards" / "winnow.json"
ALERTS = OBSERVABILITY / "alerts.yml"
TOOLS = ROOT / ".winnow" / "tools"

_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
    "unknown": ("",),
    "info": ("_info",),
}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"] if "expr" in target]


def autoscaler_metrics() -> Iterator[str]:
    for path in sorted((ROOT / "deploy").glob("kubernetes/**/*.y*ml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("kind") == "HorizontalPodAutoscaler":
                for metric in document["spec"].get("metrics", []):
                    for source in metric.values():
                        if isinstance(source, dict) and "metric" in source:
                            yield source["metric"]["name"]


def metrics_of(expression: str) -> set[str]:
    """The metrics that PromQL names. All that concern us begin so; `up` is Prometheus's own."""
    without_labels = re.sub(r"\{[^}]*\}", "", expression)
    return set(re.findall(r"\b(?:winnow|process)_\w+", without_labels))


def labels_of(expression: str) -> set[str]:
    """The labels that PromQL selects or groups by."""
    groups = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)) | {
        label.strip() for group in groups for label in group.split(",")
    }


def values_of(expressions: str) -> set[str]:
    """The values of labels that PromQL selects, but for jobs, which are Prometheus's, and patterns of methods."""
    found = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", expressions)
    return {value for label, values in found if label not in ("job", "method") for value in values.split("|")}


def trees() -> Iterator[ast.Module]:
    for part in ("packages", "services"):
        for path in sorted((ROOT / part).glob("*/winnow_*/**/*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def constants() -> set[str]:
    """Every string of the services' code."""
    nodes = [node for tree in trees() for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def declared_labels() -> dict[str, set[str]]:
    """Metric → its labels, of those that are declared one by one: some have no sample until something goes wrong."""
    found: dict[str, set[str]] = {}
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
                name, *_, last = node.args
                if isinstance(name, ast.Constant) and str(name.value).startswith("winnow_"):
                    labels = last.elts if isinstance(last, ast.List) else []
                    found[name.value] = {str(each.value) for each in labels if isinstance(each, ast.Constant)}
    return found


async def exported(services: Services) -> set[str]:
    names: set[str] = set()
    for service in services.servers:
        text = (await services.scraped(service)).text
        for family in text_string_to_metric_families(text):
            names |= {family.name + suffix for suffix in _SUFFIXES[family.type]}
    return names


async def test_every_metric_that_is_looked_at_is_one_that_a_service_exports(services: Services) -> None:
    named = {
        "alerts": [rule["expr"] for rule in alerts()],
        "dashboard": dashboard_expressions(),
        "autoscalers": list(autoscaler_metrics()),
    }
    known = await exported(services)
    missing = {
        where: absent
        for where, expressions in named.items()
        if (absent := set().union(*map(metrics_of, expressions)) - known)
    }
    assert missing == {}
    assert metrics_of(" ".join(named["alerts"])), "nothing was found to check"


async def test_every_label_that_is_looked_at_is_one_that_the_metric_has(services: Services) -> None:
    having = declared_labels()
    for service in services.servers:
        for sample in (await services.scraped(service)).samples:
            name = re.sub(r"_(total|bucket|sum|count)$", "", sample.name)
            having.setdefault(name, set()).update(sample.labels)
    for expression in [rule["expr"] for rule in alerts()] + dashboard_expressions():
        named = [re.sub(r"_(total|bucket|sum|count)$", "", name) for name in metrics_of(expression)]
        # What Prometheus adds, and what histogram_quantile goes by.
        allowed = {"job", "instance", "le"}.union(*(having[name] for name in named))
        assert labels_of(expression) <= allowed, expression


def test_every_value_of_a_label_that_is_looked_at_is_one_that_the_code_has() -> None:
    known = constants() | {code.name for code in grpc.StatusCode}
    looked_at = values_of(" ".join([rule["expr"] for rule in alerts()] + dashboard_expressions()))
    assert {"closed", "rerank-skipped", "QUEUE_FULL", "abandoned"} <= looked_at, "nothing was found to check"
    assert looked_at - known == set()


async def test_every_metric_of_ours_keeps_the_conventions(services: Services) -> None:
    for service in services.servers:
        for family in text_string_to_metric_families((await services.scraped(service)).text):
            assert family.name.startswith(("winnow_", "process_", "python_")), family.name
            assert family.documentation, family.name
            if family.name.startswith("winnow_") and family.type == "histogram" and "depth" not in family.name:
                assert family.name.endswith(("_seconds", "_tokens")), family.name


def test_every_panel_says_what_it_shows_and_in_what_unit() -> None:
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len(shown)
    for panel in shown:
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] in {"prometheus", "traces"}, panel["title"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        annotations = rule["annotations"]
        assert annotations["summary"]
        assert annotations["description"]
        assert annotations["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_is_made_to_fire_and_to_stay_silent() -> None:
    tested: dict[str, set[bool]] = {}
    for test in yaml.safe_load((OBSERVABILITY / "alerts_test.yml").read_text())["tests"]:
        for case in test["alert_rule_test"]:
            tested.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert tested == {rule["alert"]: {True, False} for rule in alerts()}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool", path=os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS)]))
    if found is None:
        pytest.skip("promtool is neither on PATH nor in .winnow/tools: deploy/observability/fetch-promtool")
    return found


def test_the_alert_rules_pass_their_test(promtool: str) -> None:
    command = [promtool, "test", "rules", str(OBSERVABILITY / "alerts_test.yml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_the_dashboard_asks_is_promql(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(dashboard_expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_can_read_its_configuration(promtool: str, tmp_path: Path) -> None:
    configuration = (OBSERVABILITY / "prometheus.yml").read_text()
    path = tmp_path / "prometheus.yml"
    path.write_text(configuration.replace("/etc/prometheus/alerts.yml", str(ALERTS)))
    ended = subprocess.run(
        [promtool, "check", "config", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_overlay_mounts_files_that_are_there_and_publishes_on_loopback_alone() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.observability.yml").read_text())["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), f"{name}: {source}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"
        if "image" in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name}: {service['image']}"


@pytest.mark.skipif(why_no_compose() != "", reason=why_no_compose())
@pytest.mark.parametrize(
    ("overlays", "watched"),
    [
        (["deploy/compose.observability.yml"], {"gateway", "embedder", "reranker"}),
        (
            [
                "deploy/compose.embedded.yml",
                "deploy/compose.observability.yml",
                "deploy/compose.observability.embedded.yml",
            ],
            {"gateway", "embedder", "reranker", "index"},
        ),
    ],
)
def test_what_the_overlay_turns_on_is_what_is_listened_to(overlays: list[str], watched: set[str]) -> None:
    services = merged("docker-compose.yml", *overlays)["services"]
    scraped = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["scrape_configs"]
    ports = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in scraped}
    collector = yaml.safe_load((OBSERVABILITY / "collector.yml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    assert {"collector", "traces", "prometheus", "grafana"} <= services.keys()
    for name in watched:
        environment = services[name]["environment"]
        assert environment[f"WINNOW_{name.upper()}_METRICS_PORT"] == str(ports[name])
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"
