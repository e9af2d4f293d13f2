import json
from pathlib import Path
from typing import Any

import pytest

from winnow_inference.models.mixing import Mixing, read_mixing
from winnow_rpc.faults import FailedPrecondition

GOOD = {"k": 10, "retrieval_weight": 1.0, "rerank_weight": 2}


def stored(folder: Path, content: Any) -> Path:
    (folder / "winnow.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_model_without_the_file_or_without_mixing_recommends_none(tmp_path: Path) -> None:
    assert read_mixing(tmp_path) is None
    assert read_mixing(stored(tmp_path, {"calibration": {}})) is None


def test_stored_mixing_is_read(tmp_path: Path) -> None:
    assert read_mixing(stored(tmp_path, {"mixing": GOOD})) == Mixing(k=10, retrieval_weight=1, rerank_weight=2)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"mixing": None},
        {"mixing": {"k": 10}},
        {"mixing": GOOD | {"more": 1}},
        {"mixing": GOOD | {"k": 0.5}},
        {"mixing": GOOD | {"k": True}},
        {"mixing": GOOD | {"k": "10"}},
        {"mixing": GOOD | {"rerank_weight": 0}},
        {"mixing": GOOD | {"retrieval_weight": -1}},
        '{"mixing": {"k": NaN, "retrieval_weight": 1, "rerank_weight": 1}}',
        '{"mixing": {"k": Infinity, "retrieval_weight": 1, "rerank_weight": 1}}',
    ],
)
def test_malformed_mixing_is_one_sentence_that_names_the_folder(tmp_path: Path, content: Any) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        read_mixing(stored(tmp_path, content))
    assert refused.value.reason == "MODEL_UNREADABLE"
    assert str(tmp_path) in refused.value.message
    assert "\n" not in refused.value.message
