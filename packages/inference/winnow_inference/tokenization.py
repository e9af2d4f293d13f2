"""Texts to token sequences, off the event loop; what is cut is counted.

The tokenizer's own truncation and padding are off, and special tokens are set around the ids here: so a query is
tokenized once for all its documents, and the number of tokens before any cut is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

from winnow_inference.sequences import Ids, TokenSequence
from winnow_inference.truncation import Cut, PairTruncation, TextTruncation, longest_first
from winnow_rpc.faults import InvalidArgument

T = TypeVar("T")

# What counts as a query: so few texts, of so many characters in all. That takes under a millisecond.
_FEW, _SHORT_CHARACTERS = 4, 4096
# Tokens of a character until texts have been seen: English has four to five characters a token, its space included.
# What a call shows counts for a tenth, and calls of a few words show nothing.
_TOKENS_PER_CHARACTER, _WEIGHT, _TELLING_CHARACTERS = 0.2, 0.1, 200
# Seconds and characters, until calls have been timed: 2 MB of English a second.
_FIRST_TIMED = (0.05, 1e5)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The token sequences of a request."""

    sequences: list[TokenSequence]
    """One a text or pair, in their order."""
    cuts: list[Cut]
    """The ones that were cut, by rising index."""
    token_count: int
    """Tokens of all sequences, special tokens and prompts included."""
    micros: int
    """Time that it took, microseconds."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The special tokens around a text or a pair, and the segment of each token."""

    opening: Ids
    middle: Ids
    closing: Ids
    opening_segments: Ids
    middle_segments: Ids
    closing_segments: Ids
    first_segment: int
    second_segment: int

    @property
    def size(self) -> int:
        return len(self.opening) + len(self.middle) + len(self.closing)


class TextTokenizer:
    """Makes token sequences of single texts and of pairs, in threads of its own.

    `backend` is a fast tokenizer; it is copied, never changed. `max_token_count` bounds every sequence, special tokens
    and prompt included.
    """

    def __init__(self, backend: Tokenizer, *, max_token_count: int) -> None:
        self._backend = Tokenizer.from_str(backend.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._single = _frame_of(self._backend, pair=False)
        self._pair = _frame_of(self._backend, pair=True)
        self.max_token_count = max_token_count
        """Tokens of the longest sequence it makes."""
        self._tokens_per_character = _TOKENS_PER_CHARACTER
        self._timed_seconds, self._timed_characters = _FIRST_TIMED
        self._waiting_characters = 0
        # A query is not tokenized behind a bulk batch.
        self._short = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="tokenize-long")

    def close(self) -> None:
        """Ends its threads; work that has not begun is dropped."""
        for threads in (self._short, self._long):
            threads.shutdown(wait=False, cancel_futures=True)

    def expected_tokens(self, characters: Iterable[int]) -> int:
        """Tokens of sequences of so many characters each, as texts have had of late; nothing is tokenized for it."""
        ratio, special = self._tokens_per_character, self._single.size
        return sum(min(special + round(each * ratio), self.max_token_count) for each in characters)

    def expected_wait_seconds(self, texts: Sequence[str]) -> float:
        """How long these texts would wait until those before them are tokenized; 0 for a query."""
        return self._waiting_characters * self._timed_seconds / self._timed_characters if _is_long(texts) else 0.0

    def _learn(self, characters: int, tokenized: Tokenized) -> Tokenized:
        """Takes in how many tokens the characters of a call were."""
        if characters >= _TELLING_CHARACTERS:
            tokens = tokenized.token_count + sum(cut.dropped for cut in tokenized.cuts)
            self._tokens_per_character += _WEIGHT * (tokens / characters - self._tokens_per_character)
        return tokenized

    async def texts(
        self, texts: Sequence[str], *, prompt: str = "", truncation: TextTruncation = TextTruncation.END
    ) -> Tokenized:
        """One sequence a text, the prompt before it. Raises InvalidArgument for a text that is too long, on REFUSE."""
        tokenized = await self._in_thread(
            texts, lambda: self.tokenize_texts(texts, prompt=prompt, truncation=truncation)
        )
        return self._learn(sum(map(len, texts)) + len(prompt) * len(texts), tokenized)

    async def pairs(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        truncation: PairTruncation = PairTruncation.LONGEST_FIRST,
        field: str = "documents",
    ) -> Tokenized:
        """One sequence a pair; a text that is first in all of them is tokenized once.

        `firsts` holds either one text for all of `seconds` or one for each. Raises InvalidArgument that names
        `field[index]` for a pair that is too long, on REFUSE, or whose first text leaves the second no room, on
        DOCUMENT_ONLY.
        """
        tokenized = await self._in_thread(
            [*firsts, *seconds], lambda: self.tokenize_pairs(firsts, seconds, truncation=truncation, field=field)
        )
        repeated = len(seconds) if len(firsts) == 1 else 1
        return self._learn(repeated * sum(map(len, firsts)) + sum(map(len, seconds)), tokenized)

    async def counts(self, texts: Sequence[str], *, prompt: str = "") -> list[int]:
        """Tokens of each text before any cut, prompt and special tokens included."""
        encoded = await self._in_thread(texts, lambda: self._encode([prompt + text for text in texts]))
        return [len(ids) + self._single.size for ids in encoded]

    def tokenize_texts(
        self, texts: Sequence[str], *, prompt: str = "", truncation: TextTruncation = TextTruncation.END
    ) -> Tokenized:
        """What `texts` does, on the calling thread."""
        began = time.perf_counter_ns()
        frame, room = self._single, self.max_token_count - self._single.size
        encoded = self._encode([prompt + text for text in texts])
        prompt_tokens = len(self._encode([prompt])[0]) if prompt else 0
        cuts: list[Cut] = []
        for index, ids in enumerate(encoded):
            if len(ids) <= room:
                continue
            if truncation is TextTruncation.REFUSE:
                raise _too_long(f"texts[{index}]", len(ids) + frame.size, self.max_token_count)
            kept_prompt = self._prompt_tokens(prompt, texts[index])[:room]
            if truncation is TextTruncation.START:
                kept_text = room - len(kept_prompt)
                encoded[index] = np.concatenate([kept_prompt, ids[len(ids) - kept_text :]])
            else:
                encoded[index] = ids[:room]
            cuts.append(Cut(index, kept=room - len(kept_prompt), dropped=len(ids) - room))
        prompt_length = len(frame.opening) + prompt_tokens if prompt else 0
        sequences = [_single_sequence(frame, ids, min(prompt_length, len(ids) + frame.size)) for ids in encoded]
        return _tokenized(sequences, cuts, began)

    def tokenize_pairs(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        truncation: PairTruncation = PairTruncation.LONGEST_FIRST,
        field: str = "documents",
    ) -> Tokenized:
        """What `pairs` does, on the calling thread."""
        began = time.perf_counter_ns()
        frame, room = self._pair, self.max_token_count - self._pair.size
        encoded = self._encode([*firsts, *seconds])
        heads, tails = encoded[: len(firsts)], encoded[len(firsts) :]
        if len(heads) == 1:
            heads = heads * len(tails)
        cuts: list[Cut] = []
        sequences: list[TokenSequence] = []
        for index, (first, second) in enumerate(zip(heads, tails, strict=True)):
            kept = (len(first), len(second))
            total = sum(kept)
            if total > room:
                name = f"{field}[{index}]"
                if truncation is PairTruncation.REFUSE:
                    raise _too_long(name, total + frame.size, self.max_token_count)
                if truncation is PairTruncation.DOCUMENT_ONLY:
                    if len(first) >= room:
                        raise InvalidArgument(
                            f"the first text of {name} alone has {len(first):,} tokens and leaves the second no room "
                            f"within {room:,}",
                            field=name,
                            reason="NO_ROOM_FOR_DOCUMENT",
                        )
                    kept = (len(first), room - len(first))
                else:
                    kept = longest_first(len(first), len(second), room)
                cuts.append(Cut(index, kept=sum(kept), dropped=total - sum(kept)))
            sequences.append(_pair_sequence(frame, first[: kept[0]], second[: kept[1]]))
        return _tokenized(sequences, cuts, began)

    def _encode(self, texts: list[str]) -> list[Ids]:
        if len(texts) <= _FEW:  # on this thread, not on the library's
            encodings = [self._backend.encode(text, add_special_tokens=False) for text in texts]
        else:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def _prompt_tokens(self, prompt: str, text: str) -> Ids:
        """The tokens of `prompt + text` that begin within the prompt."""
        if not prompt:
            return np.empty(0, dtype=np.int32)
        encoding = self._backend.encode(prompt + text, add_special_tokens=False)
        count = next((at for at, (start, _) in enumerate(encoding.offsets) if start >= len(prompt)), len(encoding))
        return np.array(encoding.ids[:count], dtype=np.int32)

    async def _in_thread(self, texts: Sequence[str], work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        if not _is_long(texts):
            return await loop.run_in_executor(self._short, work)
        characters = sum(map(len, texts))
        self._waiting_characters += characters
        try:
            result, seconds = await loop.run_in_executor(self._long, _timed, work)
        finally:
            self._waiting_characters -= characters
        self._timed_seconds += seconds - _WEIGHT * self._timed_seconds
        self._timed_characters += characters - _WEIGHT * self._timed_characters
        return result


def _is_long(texts: Sequence[str]) -> bool:
    return len(texts) > _FEW or sum(map(len, texts)) > _SHORT_CHARACTERS


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _tokenized(sequences: list[TokenSequence], cuts: list[Cut], began: int) -> Tokenized:
    micros = (time.perf_counter_ns() - began) // 1000
    return Tokenized(sequences, cuts, sum(len(s) for s in sequences), micros)


# Of a text of which the vocabulary has nothing, a model without special tokens would be given no token at all, which no
# model computes; it gets one that says nothing.


def _single_sequence(frame: _Frame, ids: Ids, prompt_length: int) -> TokenSequence:
    if not len(ids) + frame.size:
        return TokenSequence.blank(1)
    segments = np.full(len(ids), frame.first_segment, dtype=np.int32)
    return TokenSequence(
        np.concatenate([frame.opening, ids, frame.closing]),
        np.concatenate([frame.opening_segments, segments, frame.closing_segments]),
        prompt_length,
    )


def _pair_sequence(frame: _Frame, first: Ids, second: Ids) -> TokenSequence:
    if not len(first) + len(second) + frame.size:
        return TokenSequence.blank(1)
    return TokenSequence(
        np.concatenate([frame.opening, first, frame.middle, second, frame.closing]),
        np.concatenate(
            [
                frame.opening_segments,
                np.full(len(first), frame.first_segment, dtype=np.int32),
                frame.middle_segments,
                np.full(len(second), frame.second_segment, dtype=np.int32),
                frame.closing_segments,
            ]
        ),
    )


def _too_long(name: str, tokens: int, limit: int) -> InvalidArgument:
    return InvalidArgument(
        f"{name} has {tokens:,} tokens, special tokens included; the model reads {limit:,}",
        field=name,
        reason="TEXT_TOO_LONG",
        metadata={"token_count": str(tokens), "max_token_count": str(limit)},
    )


def _frame_of(backend: Tokenizer, *, pair: bool) -> _Frame:
    """Reads the special tokens off a sample: sequence numbers tell which tokens are a text's own."""
    framed = backend.encode("a", "b") if pair else backend.encode("a")
    ids = np.array(framed.ids, dtype=np.int32)
    segments = np.array(framed.type_ids, dtype=np.int32)
    owners = np.array([-1 if owner is None else owner for owner in framed.sequence_ids])
    first = np.flatnonzero(owners == 0)
    second = np.flatnonzero(owners == 1)
    if not len(first) or (pair and not len(second)):
        msg = "the tokenizer makes no tokens of a plain letter"
        raise ValueError(msg)
    last = second if pair else first
    head, tail = slice(0, first[0]), slice(last[-1] + 1, None)
    between = slice(first[-1] + 1, second[0]) if pair else slice(0, 0)
    return _Frame(
        opening=ids[head],
        middle=ids[between],
        closing=ids[tail],
        opening_segments=segments[head],
        middle_segments=segments[between],
        closing_segments=segments[tail],
        first_segment=int(segments[first[0]]),
        second_segment=int(segments[second[0]]) if pair else 0,
    )
