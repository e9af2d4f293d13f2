import subprocess
import sys
from pathlib import Path

import pytest

from winnow_inference.sample_texts import lines_of, pairs, paragraphs
from winnow_rpc.faults import FailedPrecondition, Fault, NotFound


def test_the_sample_is_english_prose_of_several_lengths() -> None:
    texts = paragraphs(320)
    assert len(texts) == 320
    assert len(set(texts)) == 320
    assert all("\n" not in text and text == text.strip() for text in texts)
    assert min(map(len, texts)) < 150
    assert max(map(len, texts)) > 600


def test_the_sample_is_always_the_same_and_a_longer_one_begins_with_it() -> None:
    assert paragraphs(64) == paragraphs(64) == paragraphs(320)[:64]
    # Also where strings hash otherwise.
    code = "from winnow_inference.sample_texts import paragraphs; print(ascii(paragraphs(64)))"
    for seed in ("1", "2"):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert ended.stdout.strip() == ascii(paragraphs(64))


def test_every_second_pair_belongs_together() -> None:
    texts = [f"subject {at} is this. and more of {at}." for at in range(6)]
    queries, passages = pairs(texts)
    assert queries == [f"subject {at} is this" for at in range(6)]
    assert [passages[at] == texts[at] for at in range(6)] == [False, True] * 3
    assert all(passages[at] in texts for at in range(6))


def test_lines_are_taken_without_blanks_up_to_a_count_in_an_order_that_stays(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    lines = [f"text {at}, which is näh" for at in range(50)]
    file.write_text("\n\n".join([*lines, "", "  "]), encoding="utf-8")
    assert sorted(lines_of(file, 256)) == sorted(lines)
    assert sorted(lines_of(file, 40)) == sorted(lines[:40])
    assert lines_of(file, 256) == lines_of(file, 256)


def few(file: Path) -> None:
    file.write_text("\n".join(["one text"] * 31))


BAD = {
    "not there": (lambda file: None, NotFound, "there is no file"),
    "a folder": (lambda file: file.mkdir(), FailedPrecondition, "cannot be read"),
    "not text": (lambda file: file.write_bytes(b"\xff\xfe\x00" * 100), FailedPrecondition, "UTF-8"),
    "empty": (lambda file: file.write_text(""), FailedPrecondition, "0 lines of text; at least 32"),
    "too few": (few, FailedPrecondition, "31 lines of text; at least 32"),
    "blank lines": (lambda file: file.write_text(" \n" * 100), FailedPrecondition, "0 lines"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_of_calibration_texts_is_a_fault_that_names_it(tmp_path: Path, bad: str) -> None:
    spoil, kind, says = BAD[bad]
    file = tmp_path / "texts.txt"
    spoil(file)
    with pytest.raises(Fault, match=says) as refused:
        lines_of(file, 256)
    assert isinstance(refused.value, kind)
    assert refused.value.reason == "BAD_SETTING"
    assert str(file) in refused.value.message
    assert refused.value.metadata == {"file": str(file)}
