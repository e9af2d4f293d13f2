from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.unit.inference.fakes import FakeEngine, sequence
from winnow_inference.models.facts import BiEncoderFacts, CrossEncoderFacts, Padding
from winnow_inference.reference import Reference, make_reference, parity, sequences_of
from winnow_inference.sequences import TokenSequence
from winnow_inference.tokenization import TextTokenizer

PADDING = Padding(token_id=0, segment_id=0, left=False, segments=True)
BI_ENCODER = BiEncoderFacts(
    fingerprint="f" * 64,
    max_token_count=32,
    padding=PADDING,
    dimension=2,
    query_prompt="query: ",
    passage_prompt="",
    prompt_is_pooled=True,
    similarity="cosine",
    normalized=True,
)
CROSS_ENCODER = CrossEncoderFacts(
    fingerprint="f" * 64, max_token_count=32, padding=PADDING, labels=("a", "b"), activation_name="identity", prompt=""
)


@pytest.fixture
def tokenizer(backend: Tokenizer) -> TextTokenizer:
    return TextTokenizer(backend, max_token_count=32)


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sequences = [
        TokenSequence(random.integers(0, 100, size, dtype=np.int32), random.integers(0, 2, size, dtype=np.int32))
        for size in (5, 1, 32, 7)
    ]
    rows = random.normal(size=(4, 384)).astype(np.float32)
    Reference(sequences, rows).save(tmp_path / "reference.npz")
    read = Reference.load(tmp_path / "reference.npz")
    np.testing.assert_array_equal(read.rows, rows)
    assert read.rows.dtype == np.float32
    assert len(read.sequences) == 4
    for found, expected in zip(read.sequences, sequences, strict=True):
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.segments, expected.segments)
        assert found.ids.dtype == np.int32


def test_one_sequence_alone_can_be_saved(tmp_path: Path) -> None:
    Reference([sequence(3, 4)], np.ones((1, 2), dtype=np.float32)).save(tmp_path / "reference.npz")
    (read,) = Reference.load(tmp_path / "reference.npz").sequences
    assert read.ids.tolist() == [3, 0, 0, 0]


def test_a_bi_encoder_is_tried_on_passages_and_queries_each_with_its_prompt(tokenizer: TextTokenizer) -> None:
    texts = ["the river runs. to the sea.", "bread. and cheese.", "music. in paris.", "red. green. blue."]
    found = sequences_of(BI_ENCODER, tokenizer, texts)
    prompt = len(tokenizer.tokenize_texts([""], prompt="query: ").sequences[0]) - 2
    assert [one.prompt_length > 0 for one in found] == [False, False, True, True]
    assert prompt > 0


def test_a_cross_encoder_is_tried_on_pairs_that_belong_together_and_such_that_do_not(tokenizer: TextTokenizer) -> None:
    found = sequences_of(CROSS_ENCODER, tokenizer, ["bread. cheese.", "music. paris.", "red. green.", "sea. river."])
    assert len(found) == 4
    assert all(set(one.segments.tolist()) == {0, 1} for one in found)


@pytest.mark.parametrize("facts", [BI_ENCODER, CROSS_ENCODER])
def test_an_engine_agrees_with_its_own_reference_and_another_does_not(
    facts: BiEncoderFacts | CrossEncoderFacts, tokenizer: TextTokenizer
) -> None:
    engine = FakeEngine()
    reference = make_reference(facts, tokenizer, engine)
    assert reference.rows.shape == (64, 2)
    assert max(map(len, reference.sequences)) <= 32
    assert max(map(len, engine.batches)) <= 8
    assert parity(facts, reference, engine).least == pytest.approx(1.0)
    other = replace(reference, rows=reference.rows[::-1])
    assert parity(facts, other, engine).least < 0.9999
    assert parity(facts, reference, engine).measure == ("cosine" if facts is BI_ENCODER else "spearman")
