"""What is taken out of images, on folders of this test's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[3] / "deploy" / "trim.py"


@pytest.fixture
def trim() -> Any:
    spec = importlib.util.spec_from_file_location("trim", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


def _left(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_a_pattern_matches_goes_whole_and_nothing_else(trim: Any, tmp_path: Path) -> None:
    _make(tmp_path, "a/tests/deep/t.py", "a/kept.py", "b/stub.pyi", "b/kept.py", "lib/libgpu_plugin.so")
    (tmp_path / "target").mkdir()
    (tmp_path / "tests").symlink_to(tmp_path / "target")
    trim.remove(tmp_path, ["**/tests", "**/*.pyi", "lib/*gpu_plugin*", "not/there"])
    assert _left(tmp_path) == {"a/kept.py", "b/kept.py"}
    assert (tmp_path / "target").is_dir(), "a link goes, not what it points to"


def test_architectures_that_read_no_text_go(trim: Any, tmp_path: Path) -> None:
    _make(tmp_path, "bert/modeling_bert.py", "bert/tokenization_bert.py")
    _make(tmp_path, "modernbert/modeling_modernbert.py")
    _make(tmp_path, "vit/modeling_vit.py", "vit/image_processing_vit.py")
    _make(tmp_path, "clip/modeling_clip.py", "clip/image_processing_clip.py", "clip/tokenization_clip.py")
    _make(tmp_path, "auto/image_processing_auto.py")
    trim.remove_those_without_text(tmp_path)
    assert {name.split("/")[0] for name in _left(tmp_path)} == {"auto", "bert", "clip", "modernbert"}


def test_an_import_is_left_out_only_where_it_stands_as_expected(trim: Any, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import os\nfrom far.away import thing\n\nprint(thing)\n")
    trim.leave_out_import(module, "from far.away import thing")
    assert module.read_text() == "import os\nthing = None\n\nprint(thing)\n"
    with pytest.raises(ValueError, match="does not import as expected"):
        trim.leave_out_import(module, "from far.away import thing")


def test_no_pattern_leaves_the_root(trim: Any) -> None:
    for pattern in (*trim.SYSTEM, *trim.LIBRARIES):
        assert not pattern.startswith("/")
        assert ".." not in Path(pattern).parts
        assert pattern.strip("*/") != ""
