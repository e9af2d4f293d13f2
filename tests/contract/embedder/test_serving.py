"""The process: health from real forward passes, a start that fails in one sentence, a help that is quick."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.contract.embedder.served import serving
from tests.models.gated_engine import GatedEngine
from winnow.embedder.v1 import embedder_pb2 as pb
from winnow_inference.engines.base import EngineLost
from winnow_inference.models.facts import BiEncoderFacts
from winnow_inference.opening import OpenModel

SERVICE = "winnow.embedder.v1.EmbedderService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def until(channel: grpc.aio.Channel, status: int) -> None:
    watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
    async for seen in watching:
        if seen.status == status:
            watching.cancel()
            return


async def test_health_follows_the_engine_down_and_up_again(tiny_model: OpenModel[BiEncoderFacts]) -> None:
    engine = GatedEngine(16)

    def lose() -> None:
        raise EngineLost("gone")

    async with serving(tiny_model, engine=engine, probe_seconds=0.05) as (stub, channel):
        await until(channel, SERVING)
        engine.fail = lose
        await until(channel, NOT_SERVING)
        engine.fail = lambda: None
        await until(channel, SERVING)
        options = pb.EmbedOptions(input_type=pb.INPUT_TYPE_PASSAGE)
        await stub.EmbedTexts(pb.EmbedTextsRequest(texts=["bread"], options=options))


def start(*flags: str, module: str = "winnow_embedder") -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_help_is_quick_and_explains_every_setting() -> None:
    began = time.monotonic()
    with start("--help") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert time.monotonic() - began < 5  # torch alone takes longer on a small machine
    assert "--model str           The model: a folder" in out


def test_no_heavy_library_is_imported_before_a_model_is_loaded() -> None:
    code = "import sys, winnow_embedder.__main__; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--model", "/no/such/model"], "MODEL_NOT_FOUND"),
        (["--model", "winnow-tests/no-such-model", "--offline"], "MODEL_NOT_FOUND"),
        (["--device", "gpu"], "BAD_SETTING"),
        (["--max-text-count", "0"], "BAD_SETTING"),
        (["--no-such-flag"], "BAD_SETTING"),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence_and_status_1(flags: list[str], reason: str, tmp_path: Path) -> None:
    with start("--port", "0", "--log-format", "json", *flags) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = error.splitlines()
    assert reason in line
    assert "Traceback" not in error


def test_a_real_process_says_what_it_loaded_serves_and_drains(tmp_path: Path) -> None:
    from tests.models.tiny import build_bi_encoder

    folder = build_bi_encoder(tmp_path / "model")
    process = start("--port", "0", "--log-format", "json", "--model", str(folder), "--device", "cpu")
    assert process.stderr is not None
    try:
        events = []
        for line in process.stderr:
            events.append(json.loads(line))
            if events[-1]["event"] == "serving":
                break
        # Before that it says what it prepares, where it has not done so before.
        assert [event["event"] for event in events[-3:]] == ["model loaded", "listening", "serving"]
        loaded = events[-3]
        assert loaded["model"] == str(folder)
        assert loaded.keys() >= {"fingerprint", "engine", "device", "dtype", "why", "dimension"}
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert [json.loads(line)["event"] for line in rest.splitlines()] == ["draining", "stopped"]
    finally:
        process.kill()
        process.wait()
