"""`make clean` removes what can be made again, and nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MADE_AGAIN = (".venv", ".winnow/peers", ".winnow/tools", ".winnow/demo", ".mypy_cache", ".ruff_cache", "build")
KEPT = (".winnow/data", ".winnow/bench", ".winnow/evaluate", "notes")
"""The index of `winnow up`, what was measured, and what is nobody's business."""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_clean_removes_what_can_be_made_again_and_keeps_the_index(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in (*MADE_AGAIN, *KEPT):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a-file").write_text("something")
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert [folder for folder in MADE_AGAIN if (tmp_path / folder).exists()] == []
    assert [folder for folder in KEPT if not (tmp_path / folder / "a-file").exists()] == []
