"""A loaded cross-encoder that many callers share: pairs of texts in, scores out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from winnow_inference.engines.base import Engine, EngineDescription
from winnow_inference.engines.torch_engines import TorchCrossEncoder
from winnow_inference.loading import LoadedCrossEncoder
from winnow_inference.queueing import Priority
from winnow_inference.runner import Runner, RunnerLimits
from winnow_inference.sequences import Matrix
from winnow_inference.tokenization import TextTokenizer
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


class CrossEncoder:
    """Tokenizer, queue and engine of one cross-encoder. `start` it, share it, `close` it."""

    def __init__(
        self, model: LoadedCrossEncoder, limits: RunnerLimits, *, make_engine: Callable[[], Engine] | None = None
    ) -> None:
        """`make_engine` makes what computes, anew whenever the old one is lost; by default the torch engine."""
        self.model = model
        """The model and all that is known of it."""
        self._tokenizer = TextTokenizer(model.tokenizer, max_token_count=model.max_token_count)
        self._runner = Runner(make_engine or self._torch_engine, limits)

    def _torch_engine(self) -> Engine:
        model = self.model
        return TorchCrossEncoder(
            model.module,
            padding=model.padding,
            placement=model.placement,
            width=len(model.labels),
            activation=model.activation,
        )

    @property
    def engine(self) -> EngineDescription:
        """What computes."""
        return self._runner.description

    @property
    def limits(self) -> RunnerLimits:
        """What may wait and run at once."""
        return self._runner.limits

    async def start(self) -> None:
        """Makes the engine."""
        await self._runner.start()

    async def close(self) -> None:
        """Ends everything; what waits is refused."""
        await self._runner.close()
        self._tokenizer.close()

    async def probe(self) -> None:
        """One small forward pass; raises if the engine cannot."""
        await self._runner.probe()

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
        self._runner.refuse_if_full()
        prompted = [self.model.prompt + first for first in firsts]
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
        self._runner.refuse_if_full()
        tokenized = await self._tokenizer.pairs([self.model.prompt + first], seconds, truncation=truncation)
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
                )
                is_first = False
