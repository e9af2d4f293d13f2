"""Reranking call by call: how large a call is, what it teaches, and whose silence is whose."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import cycle

import pytest

from tests.fakes.backends import FakeReranker
from winnow_gateway.breaking import BreakerState, CircuitBreaker
from winnow_gateway.costs import CostBook, RerankCost
from winnow_gateway.outcomes import Cause
from winnow_gateway.ports import RerankedBatch
from winnow_gateway.reranking import AnytimeReranker, Reranking
from winnow_rpc.faults import FailedPrecondition


class _TimedReranker(FakeReranker):
    def __init__(self, bench: "Bench") -> None:
        super().__init__()
        self._bench = bench

    async def rerank(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", timeout: float | None = None
    ) -> AsyncGenerator[RerankedBatch, None]:
        scoring = super().rerank(query, passages, fingerprint=fingerprint, timeout=timeout)
        async with aclosing(scoring) as batches:
            async for batch in batches:
                self._bench.now += self._bench.took
                yield batch


class Bench:
    """A reranker and what watches over it, on a clock that the tests hold in their hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reranker = _TimedReranker(self)
        self.breaker = CircuitBreaker(clock=self.clock)
        self.book = CostBook()
        self.anytime = AnytimeReranker(reranker=self.reranker, breaker=self.breaker, book=self.book, clock=self.clock)
        self.took = 0.01
        """Seconds of the clock that a batch takes."""

    def clock(self) -> float:
        return self.now

    def changing(self, *, replicas: int) -> None:
        """From now on replicas answer in turn, the last of which serves a newer model."""
        models = [self.reranker.served] * (replicas - 1) + [replace(self.reranker.served, fingerprint="d" * 64)]
        answering = cycle(models)

        def next_one(fingerprint: str) -> None:
            self.reranker.served = next(answering)
            FakeReranker.require(self.reranker, fingerprint)

        self.reranker.require = next_one  # type: ignore[method-assign]

    async def run(
        self, passages: Sequence[str], *, state: Reranking | None = None, seconds: float = 10.0, pause: float = 0.0
    ) -> Reranking:
        """`pause`: seconds that the caller takes over each state."""
        state = state or Reranking()
        start = len(state.scores)
        cost = self.cost
        async for _ in self.anytime.run(
            state,
            collection="docs",
            query="cat",
            start=start,
            passages=passages[start:],
            cost=cost,
            stop_at=self.now + seconds,
        ):
            self.now += pause
        return state

    @property
    def cost(self) -> RerankCost:
        return self.book.costs("docs", now=self.now).rerank


PASSAGES = [f"the cat sat on mat number {at}" for at in range(40)]
"""Of seven words."""


async def test_what_is_too_large_for_one_call_is_reranked_in_several_and_the_next_search_knows() -> None:
    bench = Bench()
    bench.reranker.max_call_words = 100
    state = await bench.run(PASSAGES)
    assert (sorted(state.scores), state.cause) == (list(range(40)), None)
    assert bench.reranker.calls == 1 + 6, "one is refused; then as many as are half of what may wait, which is 7"
    bench.reranker.calls = 0
    assert len((await bench.run(PASSAGES)).scores) == 40
    assert bench.reranker.calls <= 6, "none is refused any more"
    assert bench.breaker.state is BreakerState.CLOSED


async def test_a_passage_that_is_too_large_by_itself_ends_the_reranking_and_is_said() -> None:
    bench = Bench()
    bench.reranker.max_call_words = 6
    state = await bench.run(PASSAGES)
    assert (state.scores, state.cause) == ({}, Cause.OVERLOADED)
    assert bench.reranker.calls <= 3


async def test_the_time_that_a_caller_takes_over_a_state_is_not_learned_as_the_rerankers() -> None:
    quick, slow = Bench(), Bench()
    for _ in range(5):
        await quick.run(PASSAGES)
        await slow.run(PASSAGES, pause=0.2)
    assert quick.cost.seconds(100) == pytest.approx(0.5, rel=0.05), "100 passages are 50 batches of 10 ms"
    assert slow.cost.seconds(100) <= 1.2 * quick.cost.seconds(100)


async def test_a_caller_who_takes_the_whole_time_is_not_a_reranker_that_is_silent() -> None:
    bench = Bench()
    for _ in range(5):
        state = await bench.run(PASSAGES, seconds=1.0, pause=2.0)
        assert (len(state.scores), state.cause, state.fault) == (2, Cause.NO_TIME, None)
    assert bench.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("replicas", [2, 3, 4])
async def test_while_replicas_change_their_model_all_scores_of_a_search_are_of_one(replicas: int) -> None:
    bench = Bench()
    bench.changing(replicas=replicas)
    for _ in range(replicas):
        state = await bench.run(PASSAGES[:10])
        model = state.fingerprint
        for count in (20, 30, 40):
            await bench.run(PASSAGES[:count], state=state)
            assert (len(state.scores), state.cause, state.fingerprint) == (count, None, model)


async def test_a_model_that_is_served_no_more_ends_a_reranking_with_what_it_has() -> None:
    bench = Bench()
    state = await bench.run(PASSAGES[:10])
    bench.reranker.served = replace(bench.reranker.served, fingerprint="d" * 64)
    await bench.run(PASSAGES, state=state)
    assert (len(state.scores), state.cause) == (10, Cause.MODEL_CHANGED)
    assert "another model" in Cause.MODEL_CHANGED.because("reranker", state.fault)
    assert bench.breaker.state is BreakerState.CLOSED
    assert (await bench.run(PASSAGES)).fingerprint == "d" * 64, "the next one begins with the new model"


def test_scores_of_another_model_are_never_taken_in() -> None:
    state = Reranking()
    state.take(RerankedBatch({0: 1.0}, {}, token_count=1, inference_micros=1, model_fingerprint="a"), start=0)
    with pytest.raises(FailedPrecondition):
        state.take(RerankedBatch({0: 2.0}, {}, token_count=1, inference_micros=1, model_fingerprint="b"), start=1)
    assert state.scores == {0: 1.0}
