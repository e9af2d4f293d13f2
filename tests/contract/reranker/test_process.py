"""The process: a start that fails in one sentence, a help that is quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.tiny import build_cross_encoder


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    return subprocess.run(
        [sys.executable, "-m", "winnow_reranker", *flags],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_help_explains_every_setting() -> None:
    ended = start("--help")
    assert ended.returncode == 0
    assert "--max-document-count int" in ended.stdout
    assert "--model str           The model: a folder" in ended.stdout


def test_no_heavy_library_is_imported_before_a_model_is_loaded() -> None:
    code = "import sys, winnow_reranker.__main__; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize("what", ["missing", "no weights", "malformed mixing"])
def test_a_model_that_cannot_be_read_is_one_sentence_and_status_1(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "model"
    if what != "missing":
        build_cross_encoder(folder)
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    if what == "malformed mixing":
        (folder / "winnow.json").write_text('{"mixing": {"k": 0}}')
    ended = start("--port", "0", "--log-format", "json", "--model", str(folder))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert str(folder) in line
    assert "Traceback" not in line
