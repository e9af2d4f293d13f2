"""A loaded cross-encoder that many callers share: pairs of texts in, scores out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass

from winnow_inference.hosting import HostedModel
from winnow_inference.models.facts import CrossEncoderFacts
from winnow_inference.scheduling.observing import Batch
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.sequences import Matrix
from winnow_inference.truncation import Cut, PairTruncation


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some pairs of a request, and what they cost."""

    indexes: list[int]
    """Positions of the pairs in the request, rising."""
    scores: Matrix
    """Float32 [pairs, labels], in the order of `indexes`."""
    token_count: int
    """Tokens that the model read, special tokens included."""
    cuts: list[Cut]
    """Those of the pairs that were cut."""
    queue_micros: int
    """From the end of tokenization until the first batch began; of a stream, in its first part only."""
    tokenize_micros: int
    """Turning text into tokens; of a stream, in its first part only."""
    inference_micros: int
    """Model time of the batches, shared ones counted whole."""
    batches: list[Batch]
    """Those batches."""


class CrossEncoder(HostedModel[CrossEncoderFacts]):
    """A cross-encoder that many callers share."""

    async def score(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        truncation: PairTruncation = PairTruncation.LONGEST_FIRST,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        field: str = "documents",
    ) -> Scored:
        """Scores of all pairs. `firsts` holds one text for all of `seconds`, or one for each.

        Faults: those of `Runner.stream` and `TextTokenizer.pairs`; `field` is the pairs' name in them.
        """
        prompted = [self.facts.prompt + first for first in firsts]
        with self._expecting(prompted, seconds, priority):
            tokenized = await self._tokenizer.pairs(prompted, seconds, truncation=truncation, field=field)
        answer = await self._runner.run(tokenized.sequences, priority=priority, deadline=deadline)
        return Scored(
            indexes=list(range(len(seconds))),
            scores=answer.rows,
            token_count=tokenized.token_count,
            cuts=tokenized.cuts,
            queue_micros=answer.queue_micros,
            tokenize_micros=tokenized.micros,
            inference_micros=answer.inference_micros,
            batches=answer.batches,
        )

    async def score_in_order(
        self,
        first: str,
        seconds: Sequence[str],
        *,
        truncation: PairTruncation = PairTruncation.LONGEST_FIRST,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> AsyncGenerator[Scored, None]:
        """Scores of one text with each of `seconds`, batch by batch, the first ones first.

        Close the generator to cancel what has not begun. Faults as for `score`.
        """
        prompted = [self.facts.prompt + first]
        with self._expecting(prompted, seconds, priority):
            tokenized = await self._tokenizer.pairs(prompted, seconds, truncation=truncation)
        cuts = {cut.index: cut for cut in tokenized.cuts}
        parts = self._runner.stream(tokenized.sequences, priority=priority, deadline=deadline)
        is_first = True
        async with aclosing(parts):
            async for part in parts:
                yield Scored(
                    indexes=part.indexes,
                    scores=part.rows,
                    token_count=part.token_count,
                    cuts=[cuts[index] for index in part.indexes if index in cuts],
                    queue_micros=part.queue_micros if is_first else 0,
                    tokenize_micros=tokenized.micros if is_first else 0,
                    inference_micros=part.inference_micros,
                    batches=[part.batch],
                )
                is_first = False

    def _expecting(
        self, firsts: Sequence[str], seconds: Sequence[str], priority: Priority
    ) -> AbstractContextManager[None]:
        beside = sum(map(len, firsts)) // max(1, len(firsts))
        expected = self._tokenizer.expected_tokens(beside + len(second) for second in seconds)
        wait = self._tokenizer.expected_wait_seconds([*firsts, *seconds])
        return self._runner.expecting(priority, expected, wait_seconds=wait)
