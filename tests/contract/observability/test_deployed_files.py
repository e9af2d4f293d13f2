"""The dashboard, the alerts and the autoscalers name metrics that the services export; the alerts fire when they
should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
