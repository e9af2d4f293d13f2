"""What `winnow bench` keeps and shows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from winnow.embedder.v1 import embedder_pb2
from winnow_lab import bench_report
from winnow_lab.bench import bench
from winnow_lab.bench_inference.calls import Answered
from winnow_lab.bench_inference.contestants import Done
from winnow_lab.bench_inference.plan import LONG_PARTS, PARTS
from winnow_lab.bench_inference.profile import profile
from winnow_lab.bench_inference.report import show
from winnow_lab.bench_inference.rounds import speeds
from winnow_lab.bench_inference.soak import resident_mib


class Said:
    """An answer of a service, without messages."""

    micros = (1000, 2000, 30_000)

    def serialization_micros(self) -> float:
        return 50.0


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in bench.list_commands(click.Context(bench)):
        command = bench.get_command(click.Context(bench), name)
        assert command is not None
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_benchmark_has_an_example_and_can_write_json(name: str, command: click.Command) -> None:
    result = CliRunner().invoke(bench, [name, "--help"])
    assert result.exit_code == 0
    assert f"winnow bench {name}" in result.stdout.partition("Example")[2]
    assert {"--json", "--out"} <= {option for parameter in command.params for option in parameter.opts}


def test_a_report_is_kept_with_its_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_report.report(
        "index", lambda: {"points": 3}, out=tmp_path / "bench", machine_readable=True, show=lambda report, console: None
    )
    [kept] = (tmp_path / "bench").glob("*-index.json")
    read = json.loads(kept.read_text())
    assert read == json.loads(capsys.readouterr().out)
    assert read["index"] == {"points": 3}
    assert {"processor", "cores", "memory_gib", "load_before", "python", "torch"} <= read["machine"].keys()


def test_a_speed_is_the_median_of_the_rounds_and_says_their_range() -> None:
    rounds = [[Done(seconds=1.0), Done(seconds=1.0)], [Done(seconds=4.0)], [Done(seconds=5.0)]]
    assert speeds(rounds, items=100, tokens=1000) == {
        "per_second": 25.0,
        "per_second_low": 20.0,
        "per_second_high": 50.0,
        "tokens_per_second": 250,
        "seconds": 4.0,
    }


def test_what_a_service_costs_is_what_it_keeps_of_its_engine() -> None:
    answers: Any = [Said()]
    service = [[Done(seconds=2.0, answers=answers)]]
    engine = [[Done(seconds=1.5, batches=[(2, 10, 15), (4, 10, 40)])]]
    found = profile(service, engine, tokens=3000)
    assert found["tokens_per_second"] == 1500
    assert found["engine_tokens_per_second"] == 2000
    assert found["share_of_engine"] == 0.75
    assert found["cost_of_service"] == 0.25
    assert found["padding_share"] == pytest.approx(5 / 60, abs=1e-4)
    assert (found["batch_size_low"], found["batch_size_median"], found["batch_size_high"]) == (2, 3.0, 4)
    assert (found["queue_ms"], found["tokenize_ms"], found["inference_ms"]) == (1.0, 2.0, 30.0)
    assert found["serialization_ms"] == 0.05


def test_a_report_shows_who_could_not_be_measured_and_why() -> None:
    row = {
        "name": "winnow auto",
        "precision": "openvino bfloat16",
        "version": "",
        "per_second": 50.0,
        "per_second_low": 49.0,
        "per_second_high": 51.0,
        "tokens_per_second": 7000,
        "seconds": 2.0,
        "ratio": None,
        "cosine_mean": None,
        "cosine_min": None,
    }
    report = {
        "texts": {
            "source": "a set",
            "passages": 100,
            "passage_tokens_mean": 140.0,
            "queries": 3,
            "query_tokens_mean": 10.0,
        },
        "peers": "no peers",
        "embed": {
            "texts": 100,
            "tokens": 14_000,
            "rounds": 1,
            "contestants": [row],
            "failed": {"infinity": "infinity has ended"},
            "profile": {},
        },
        "query": [{"dtype": "int8", "failed": "the embedder did not start"}],
    }
    console = Console(width=120, record=True, file=io.StringIO())
    show(report, console)
    shown = console.export_text()
    assert "winnow auto" in shown
    assert "infinity: not measured, infinity has ended" in shown
    assert "query int8: the embedder did not start" in shown


def test_the_soak_is_measured_only_when_it_is_asked_for() -> None:
    assert set(LONG_PARTS) < set(PARTS)


def test_memory_of_a_process_is_told_where_the_system_tells_it() -> None:
    size = resident_mib(os.getpid())
    if Path("/proc/self/statm").exists():
        assert size is not None
        assert size > 1
    assert resident_mib(2**31 - 1) is None


def test_vectors_are_read_row_by_row() -> None:
    rows = np.arange(6, dtype="<f4").reshape(3, 2)
    batch = embedder_pb2.VectorBatch(data=rows.tobytes(), dimension=2, count=3)
    request = embedder_pb2.EmbedTextsRequest(texts=["a", "b", "c"])
    answered = Answered(request=request, response=embedder_pb2.EmbedTextsResponse(vectors=batch))
    assert (answered.vectors == rows).all()
    assert answered.serialization_micros(times=2) > 0
