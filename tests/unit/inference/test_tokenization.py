import asyncio
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from tests.models.tiny import WORDS
from winnow_inference.sequences import TokenSequence
from winnow_inference.tokenization import TextTokenizer
from winnow_inference.truncation import Cut, PairTruncation, TextTruncation, longest_first
from winnow_rpc.faults import InvalidArgument

LIMIT = 12
TEXTS = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer(backend: Tokenizer) -> Iterator[TextTokenizer]:
    made = TextTokenizer(backend, max_token_count=LIMIT)
    yield made
    made.close()


def words(backend: Tokenizer, sequence: TokenSequence) -> list[str]:
    return [backend.id_to_token(int(token)) for token in sequence.ids]


@given(first=st.integers(0, 50), second=st.integers(0, 50), room=st.integers(0, 60))
def test_longest_first_keeps_no_more_than_there_is_and_fills_the_room(first: int, second: int, room: int) -> None:
    kept = longest_first(first, second, room)
    assert 0 <= kept[0] <= first
    assert 0 <= kept[1] <= second
    assert sum(kept) == min(room, first + second)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=TEXTS, second=TEXTS)
def test_pairs_are_what_the_library_makes_of_them(
    backend: Tokenizer, tokenizer: TextTokenizer, first: str, second: str
) -> None:
    reference = Tokenizer.from_str(backend.to_str())
    reference.enable_truncation(LIMIT, strategy="longest_first")
    expected = reference.encode(first, second)
    made = tokenizer.tokenize_pairs([first], [second])
    assert made.sequences[0].ids.tolist() == expected.ids
    assert made.sequences[0].segments.tolist() == expected.type_ids
    whole = len(backend.encode(first, second))
    assert made.cuts == ([Cut(0, kept=LIMIT - 3, dropped=whole - LIMIT)] if whole > LIMIT else [])
    assert made.token_count == len(expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_texts_are_what_the_library_makes_of_them(backend: Tokenizer, tokenizer: TextTokenizer, text: str) -> None:
    reference = Tokenizer.from_str(backend.to_str())
    reference.enable_truncation(LIMIT)
    expected = reference.encode("query: " + text)
    made = tokenizer.tokenize_texts([text], prompt="query: ")
    assert made.sequences[0].ids.tolist() == expected.ids


def test_the_end_is_cut_and_counted_without_prompt_and_special_tokens(
    backend: Tokenizer, tokenizer: TextTokenizer
) -> None:
    text = "one two three four five six seven eight nine ten red green"
    made = tokenizer.tokenize_texts(["hello", text], prompt="query: ")
    assert words(backend, made.sequences[1]) == [
        "[CLS]", "query", ":", "one", "two", "three", "four", "five", "six", "seven", "eight", "[SEP]",
    ]  # fmt: skip
    assert made.cuts == [Cut(1, kept=8, dropped=4)]


def test_the_beginning_is_cut_but_the_prompt_stays(backend: Tokenizer, tokenizer: TextTokenizer) -> None:
    text = "one two three four five six seven eight nine ten red green"
    made = tokenizer.tokenize_texts([text], prompt="query: ", truncation=TextTruncation.START)
    assert words(backend, made.sequences[0]) == [
        "[CLS]", "query", ":", "five", "six", "seven", "eight", "nine", "ten", "red", "green", "[SEP]",
    ]  # fmt: skip
    assert made.cuts == [Cut(0, kept=8, dropped=4)]


def test_a_text_that_is_too_long_is_refused_with_both_counts(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tokenizer.tokenize_texts(["hello", "hello " * 20], truncation=TextTruncation.REFUSE)
    assert refused.value.violations[0].field == "texts[1]"
    assert refused.value.metadata == {"token_count": "22", "max_token_count": "12"}


def test_the_prompt_length_counts_the_opening_token(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokenize_texts(["hello"], prompt="query: ").sequences[0].prompt_length == 3
    assert tokenizer.tokenize_texts(["hello"]).sequences[0].prompt_length == 0


def test_document_only_leaves_the_query_whole(backend: Tokenizer, tokenizer: TextTokenizer) -> None:
    query, document = "one two three four five six seven", "red green blue a the of in to"
    made = tokenizer.tokenize_pairs([query], [document], truncation=PairTruncation.DOCUMENT_ONLY)
    assert words(backend, made.sequences[0])[1:8] == query.split()
    assert made.cuts == [Cut(0, kept=9, dropped=6)]


def test_a_query_that_leaves_the_document_no_room_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tokenizer.tokenize_pairs(["one " * 9], ["red", "green"], truncation=PairTruncation.DOCUMENT_ONLY)
    assert refused.value.reason == "NO_ROOM_FOR_DOCUMENT"


def test_a_pair_that_is_too_long_is_refused_by_name(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tokenizer.tokenize_pairs(["one"], ["red", "red " * 30], truncation=PairTruncation.REFUSE, field="pairs")
    assert refused.value.violations[0].field == "pairs[1]"
    assert refused.value.metadata == {"token_count": "34", "max_token_count": "12"}


def test_one_first_text_goes_with_every_second(tokenizer: TextTokenizer) -> None:
    documents = ["red", "green blue", ""]
    together = tokenizer.tokenize_pairs(["what is"], documents).sequences
    apart = tokenizer.tokenize_pairs(["what is"] * 3, documents).sequences
    assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in apart]


async def test_counts_are_taken_before_any_cut_and_the_empty_text_has_its_frame(tokenizer: TextTokenizer) -> None:
    assert await tokenizer.counts(["", "hello", "hello " * 50], prompt="") == [2, 3, 52]
    assert await tokenizer.counts([""], prompt="query: ") == [4]


@pytest.mark.parametrize("text", ["\x00", "\x01\x02\x7f", "한국어 текст עברית 中文 🙂", "\u200b\ufeff", "a" * 5000])
async def test_any_text_makes_a_sequence_within_the_limit(tokenizer: TextTokenizer, text: str) -> None:
    made = await tokenizer.texts([text])
    assert 2 <= len(made.sequences[0]) <= LIMIT


def test_the_tokenizer_given_is_not_changed(backend: Tokenizer) -> None:
    mine = Tokenizer.from_str(backend.to_str())
    mine.enable_truncation(5)
    TextTokenizer(mine, max_token_count=LIMIT).close()
    assert len(mine.encode("one two three four five six").ids) == 5


async def test_how_many_tokens_texts_will_have_is_learned_from_those_that_came(backend: Tokenizer) -> None:
    tokenizer = TextTokenizer(backend, max_token_count=LIMIT)
    spelled = "xyzxyzxyz " * 30  # a token a letter: this vocabulary has no such word
    try:
        before = tokenizer.expected_tokens([20])
        await tokenizer.texts(["a"] * 100)
        assert tokenizer.expected_tokens([20]) == before  # a few letters tell nothing
        for _ in range(40):
            await tokenizer.texts([spelled])
        assert before < LIMIT == tokenizer.expected_tokens([20])  # no sequence is longer
        assert tokenizer.expected_tokens([5, 0]) == pytest.approx(5 * 0.9 + 4, abs=1)
        for _ in range(40):
            await tokenizer.pairs(["hello"], ["music " * 20, "river " * 20])
        assert tokenizer.expected_tokens([20]) < LIMIT
    finally:
        tokenizer.close()


async def test_long_texts_are_expected_to_wait_for_those_before_them_and_a_query_never(backend: Tokenizer) -> None:
    tokenizer = TextTokenizer(backend, max_token_count=LIMIT)
    gate = threading.Event()
    tokenize = tokenizer.tokenize_texts
    tokenizer.tokenize_texts = lambda *a, **k: (gate.wait(10), tokenize(*a, **k))[1]  # type: ignore[method-assign]
    many = ["hello world " * 10] * 1_000
    try:
        assert tokenizer.expected_wait_seconds(many) == 0
        waiting = [asyncio.create_task(tokenizer.texts(many)) for _ in range(3)]
        await asyncio.sleep(0)
        one = tokenizer.expected_wait_seconds(many) / 3
        assert one == pytest.approx(120_000 * 5e-7)
        assert tokenizer.expected_wait_seconds(["a query"]) == 0
        gate.set()
        await asyncio.gather(*waiting)
        assert tokenizer.expected_wait_seconds(many) == 0
        gate.clear()
        again = asyncio.create_task(tokenizer.texts(many))
        await asyncio.sleep(0)
        assert tokenizer.expected_wait_seconds(many) != one, "it has been timed meanwhile"
        gate.set()
        await again
    finally:
        gate.set()
        tokenizer.close()


def test_a_text_of_which_the_vocabulary_has_nothing_is_a_sequence_all_the_same() -> None:
    # No special tokens, and none for what is unknown.
    bare = TextTokenizer(Tokenizer(BPE({"a": 0, "b": 1}, [])), max_token_count=8)
    assert [len(each) for each in bare.tokenize_texts(["\u6f22", "ab"]).sequences] == [1, 2]
    assert [len(each) for each in bare.tokenize_pairs(["\u6f22"], ["\u6f22", "ab"]).sequences] == [1, 2]
