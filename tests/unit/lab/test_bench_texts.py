"""Which texts are measured with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from winnow_lab.bench_inference.reading import read_texts
from winnow_lab.bench_inference.texts import first_sentence, overlapping, spread, within
from winnow_rpc.faults import InvalidArgument, NotFound


def test_bounds_are_included() -> None:
    assert within([99, 100, 150, 200, 201], (100, 200)) == [1, 2, 3]


def test_a_choice_is_spread_over_all_in_order() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread([4, 5], 9) == [4, 5]


def test_a_query_is_the_first_sentence_after_the_signature() -> None:
    text = "cut(text, at)\n\nCut a text in\ntwo. The second part may be empty."
    assert first_sentence(text) == "Cut a text in two."
    assert first_sentence("Only one sentence, without an end") == "Only one sentence, without an end"


def test_candidates_are_those_that_share_what_is_rare() -> None:
    common, rare, other = 1, 2, 3
    passages = [[common, other], [common, rare], [common], [other]]
    assert overlapping([[common, rare], [other]], passages, 3) == [[1, 0, 2], [0, 3, 1]]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """Every word is a token."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1, "question": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # What a file says of cutting and filling up must not change the counts.
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def written(folder: Path, *, lengths: list[int]) -> Path:
    folder.mkdir()
    documents = [{"_id": str(n), "title": "", "text": "word " * length + str(n)} for n, length in enumerate(lengths)]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    queries = [{"_id": "a", "text": "question " * 10}, {"_id": "b", "text": "question"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    return folder


def test_texts_are_filtered_by_the_tokenizer_and_counted(tmp_path: Path, tokenizer_file: Path) -> None:
    folder = written(tmp_path / "set", lengths=[50, 120, 150, 199, 300])
    texts = read_texts(folder, tokenizer_file, passages=10, depth=2)
    assert texts.passage_tokens == [121, 151, 200]
    assert texts.query_tokens == [10]
    assert [len(candidates) for candidates in texts.candidates] == [2]


def test_a_set_can_be_named_by_its_corpus(tmp_path: Path, tokenizer_file: Path) -> None:
    folder = written(tmp_path / "set", lengths=[120, 130])
    texts = read_texts(folder / "corpus.jsonl.gz", tokenizer_file, passages=1, depth=5)
    assert len(texts.passages) == 1


def test_a_set_without_texts_of_the_right_length_is_refused(tmp_path: Path, tokenizer_file: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no passage in .* has 100 to 200 tokens"):
        read_texts(written(tmp_path / "set", lengths=[3]), tokenizer_file, passages=1, depth=1)


def test_what_is_no_set_is_refused(tmp_path: Path, tokenizer_file: Path) -> None:
    with pytest.raises(InvalidArgument, match="neither a folder in the BEIR layout nor"):
        read_texts(tokenizer_file, tokenizer_file, passages=1, depth=1)
    with pytest.raises(NotFound):
        read_texts(tmp_path, tokenizer_file, passages=1, depth=1)
