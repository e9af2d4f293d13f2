"""A service that cannot start says why in one line and ends, before it does what takes long."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE = 120


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port at which another process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("service", "arguments", "variables", "reason", "named"),
    [
        ("embedder", ["--model", "/no/model"], {}, "MODEL_NOT_FOUND", "/no/model"),
        ("embedder", ["--port", "TAKEN"], {}, "CANNOT_LISTEN", "TAKEN"),
        ("embedder", [], {"WINNOW_EMBEDDER_MODLE": "x"}, "BAD_SETTING", "WINNOW_EMBEDDER_MODEL"),
        ("reranker", ["--tls-certificate", "FOLDER", "--tls-key", "FOLDER"], {}, "BAD_SETTING", "FOLDER"),
        ("reranker", ["--prot", "1"], {}, "BAD_SETTING", "--prot"),
        ("gateway", ["--port", "TAKEN"], {}, "CANNOT_LISTEN", "TAKEN"),
        ("gateway", [], {"WINNOW_GATEWAY_API_KEY_FILE": "keys.json"}, "BAD_SETTING", "WINNOW_GATEWAY_API_KEYS_FILE"),
        ("gateway", ["--api-keys-file", "FOLDER"], {}, "BAD_SETTING", "FOLDER"),
        ("index", ["--port", "TAKEN", "--data-dir", "FOLDER"], {}, "CANNOT_LISTEN", "TAKEN"),
        ("index", ["--tls-certificate", "FOLDER", "--tls-key", "FOLDER", "--data-dir", "FOLDER"], {}, "BAD_SETTING",
         "FOLDER"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_start_says_why_in_one_line_and_ends(
    tmp_path: Path,
    taken: int,
    service: str,
    arguments: list[str],
    variables: dict[str, str],
    reason: str,
    named: str,
) -> None:
    def here(text: str) -> str:
        return text.replace("TAKEN", str(taken)).replace("FOLDER", str(tmp_path))

    port = [] if "--port" in arguments else ["--port", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", f"winnow_{service}", *port, *map(here, arguments)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = [json.loads(each) for each in ended.stderr.splitlines()]
    assert (line["event"], line["level"], line["service"]) == ("cannot start", "error", service)
    assert line["reason"] == reason
    assert here(named) in line["message"]
