"""Reranking that can stop at any moment with what it has: best candidates first, until the time is up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from winnow_gateway.breaking import CircuitBreaker, Passage
from winnow_gateway.call_sizes import call_tokens, is_too_large, smaller_call
from winnow_gateway.costs import CostBook, RerankCost
from winnow_gateway.ordering import scored_prefix
from winnow_gateway.outcomes import Cause
from winnow_gateway.ports import REPLICAS_TRIED, RerankedBatch, Reranker
from winnow_rpc.faults import DeadlineExceeded, FailedPrecondition, Fault, ResourceExhausted

MAX_CALL_PASSAGES = 1_000
"""Passages of one call: what a reranker takes by default. Fewer where so many have too many tokens for it."""

# Silence is held against the reranker only when it lasts longer than its usual time to a first score can explain;
# between two batches of a busy one, others have their turns.
_LEAST_PATIENCE_SECONDS = 0.1
_LEAST_PATIENCE_BETWEEN_SECONDS = 0.5
_PATIENCE = 4.0
# Whoever takes the states of a search may take his time over each. What the reranker did meanwhile lies ready, and
# shows no longer how long it takes.
_LONGEST_PAUSE_SECONDS = 0.02


@dataclass(slots=True)
class Reranking:
    """How far it has come."""

    scores: dict[int, float] = field(default_factory=dict)
    """Position of the passage → score, in whatever order they came."""
    probabilities: dict[int, float] = field(default_factory=dict)
    """Position of the passage → calibrated probability that it is relevant; empty where the model has no calibrator."""
    fingerprint: str = ""
    token_count: int = 0
    inference_micros: int = 0
    cause: Cause | None = None
    """Why it ended before all were scored; None: it did not."""
    fault: Fault | None = None
    """What the reranker said, if it was that."""

    def take(self, batch: RerankedBatch, *, start: int) -> None:
        """Takes in a batch of a call whose first passage is at this position. Raises FailedPrecondition for one of
        another model: its scores cannot be compared with those that are there."""
        if self.fingerprint and batch.model_fingerprint != self.fingerprint:
            raise FailedPrecondition("the scores are another model's", reason="MODEL_MISMATCH")
        self.scores.update({start + position: score for position, score in batch.scores.items()})
        self.probabilities.update({start + position: value for position, value in batch.probabilities.items()})
        self.fingerprint = batch.model_fingerprint
        self.token_count += batch.token_count
        self.inference_micros += batch.inference_micros

    def give_up(self, fault: Fault) -> None:
        """Ends it without any score."""
        self.cause, self.fault = Cause.of(fault), fault
        self.scores.clear()
        self.probabilities.clear()

    def prefix(self, count: int) -> Mapping[int, float]:
        """The scores that an order may be made of: those without a gap before them."""
        return scored_prefix(self.scores, count)


class _Hearing:
    """What one call of the reranker has brought, and when, on the clock of whoever listens."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.at = began
        """When the last batch came, or the listener was back from what he did with it."""
        self.tokens = 0
        """Tokens scored so far."""
        self.paused = 0.0
        """Seconds for which nobody listened."""

    def take(self, batch: RerankedBatch, now: float) -> None:
        """A batch has come."""
        self.at = now
        self.tokens += batch.token_count

    def go_on(self, now: float) -> None:
        """The listener is back: his silence is not the reranker's."""
        self.paused += now - self.at
        self.at = now


class AnytimeReranker:
    """Reranks until it is done or its time is up. One for a gateway: it learns costs, and knows the reranker's
    health."""

    def __init__(
        self, *, reranker: Reranker, breaker: CircuitBreaker, book: CostBook, clock: Callable[[], float]
    ) -> None:
        self._reranker = reranker
        self._breaker = breaker
        self._book = book
        self._clock = clock
        self._call_tokens = math.inf
        """Tokens of one call, once the reranker has refused more."""

    async def run(
        self,
        state: Reranking,
        *,
        collection: str,
        query: str,
        start: int,
        passages: Sequence[str],
        cost: RerankCost,
        stop_at: float,
    ) -> AsyncGenerator[None, None]:
        """Fills `state`, yielding after each batch; never raises for what the reranker does. Closing it cancels the
        rest.

        `start` is the position of the first passage; `stop_at` a moment of the clock; `cost` what is expected, by which
        silence is judged.
        """
        at, size = 0, int(max(1, min(MAX_CALL_PASSAGES, self._call_tokens / cost.tokens_per_passage)))
        others = REPLICAS_TRIED - 1
        while at < len(passages):
            part = passages[at : at + size]
            async with aclosing(self._call(state, start + at, collection, query, part, cost, stop_at)) as batches:
                async for _ in batches:
                    yield
            if state.fault and is_too_large(state.fault) and len(part) > 1:
                size, self._call_tokens = smaller_call(len(part), state.fault), call_tokens(state.fault)
            elif state.cause is Cause.MODEL_CHANGED and others:
                # Replicas are changing from one model to another: the next one may still serve this.
                others -= 1
            elif state.cause:
                return
            else:
                at += len(part)
            state.cause = state.fault = None

    def unreachable(self, fault: Fault) -> None:
        """Takes note that the reranker failed to answer something else that a search needed of it."""
        passage = self._breaker.enter()
        if passage and isinstance(fault, ResourceExhausted | DeadlineExceeded | FailedPrecondition):
            self._breaker.abandoned(passage)
        elif passage:
            self._breaker.failed(passage)

    async def _call(
        self,
        state: Reranking,
        start: int,
        collection: str,
        query: str,
        passages: Sequence[str],
        cost: RerankCost,
        stop_at: float,
    ) -> AsyncGenerator[None, None]:
        heard = _Hearing(self._clock())
        if stop_at <= heard.began:
            state.cause = Cause.NO_TIME
            return
        passage = self._breaker.enter()
        if passage is None:
            state.cause = Cause.BREAKER_OPEN
            return
        stream = self._reranker.rerank(query, passages, fingerprint=state.fingerprint, timeout=stop_at - heard.began)
        try:
            async with aclosing(stream):
                while (batch := await self._next(stream, stop_at)) is not None:
                    if not heard.tokens:
                        self._breaker.succeeded(passage)
                    state.take(batch, start=start)
                    heard.take(batch, self._clock())
                    self._learn(collection, batch, heard)
                    yield
                    heard.go_on(self._clock())
        except Fault as fault:
            self._ended(fault, state, passage, heard, collection, cost)
        finally:
            self._breaker.abandoned(passage)  # says nothing where it was settled before

    def _learn(self, collection: str, batch: RerankedBatch, heard: _Hearing) -> None:
        if heard.paused <= _LONGEST_PAUSE_SECONDS:
            self._book.reranked(
                collection,
                batch.model_fingerprint,
                passages=len(batch.scores),
                tokens=batch.token_count,
                all_tokens=heard.tokens,
                seconds=heard.at - heard.began,
                now=heard.at,
            )

    def _ended(
        self, fault: Fault, state: Reranking, passage: Passage, heard: _Hearing, collection: str, cost: RerankCost
    ) -> None:
        """Says why a call ended before its time, and whether that is the reranker's fault."""
        state.cause = Cause.of(fault)
        if state.cause is not Cause.NO_TIME:
            state.fault = fault
            answered = state.cause in (Cause.OVERLOADED, Cause.MODEL_CHANGED)
            (self._breaker.succeeded if answered else self._breaker.failed)(passage)
            return
        silence = self._clock() - heard.at
        least = _LEAST_PATIENCE_BETWEEN_SECONDS if heard.tokens else _LEAST_PATIENCE_SECONDS
        if silence >= max(least, _PATIENCE * cost.seconds(1)):
            self._breaker.failed(passage)
            state.cause = Cause.UNAVAILABLE
            state.fault = DeadlineExceeded(f"it was silent for {silence * 1000:,.0f} ms")
        elif not heard.tokens:
            self._book.waited_in_vain(collection, seconds=silence, now=self._clock())

    async def _next(self, stream: AsyncGenerator[RerankedBatch, None], stop_at: float) -> RerankedBatch | None:
        try:
            async with asyncio.timeout(max(0.0, stop_at - self._clock())):
                return await anext(stream, None)
        except TimeoutError:
            raise DeadlineExceeded("the time for reranking is up", reason="DEADLINE") from None
