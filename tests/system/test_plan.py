"""`winnow plan --probe` asks services that run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.running import Up, winnow


def test_a_plan_from_running_services_knows_their_model_and_what_they_take(up: Up, tmp_path: Path) -> None:
    asked = winnow(
        *("plan", "--documents", "100000", "--qps", "2", "--probe", "--json"),
        *("--embedder", up.addresses["embedder"], "--reranker", up.addresses["reranker"]),
        cwd=tmp_path,
    )
    assert asked.returncode == 0, asked.stderr
    made = json.loads(asked.stdout)
    assert made["workload"]["dimension"] == 384
    assert made["workload"]["model_tokens"] == 256
    assert made["costs"]["source"].startswith("asked: embedder on cpu by openvino")
    # Plausible for any machine: between a microsecond and a hundredth of a second a token.
    for cost in ("embed_seconds_per_token", "rerank_seconds_per_token"):
        assert 1e-6 < made["costs"][cost] < 1e-2
    assert made["stages"][2]["needed"] >= 1
