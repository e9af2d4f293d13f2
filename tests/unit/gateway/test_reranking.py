"""Reranking call by call: how large a call is, what it teaches, and whose silence is whose."""

import time
from collections.abc import Sequence

from tests.fakes.backends import FakeReranker
from winnow_gateway.breaking import BreakerState, CircuitBreaker
from winnow_gateway.costs import CostBook
from winnow_gateway.outcomes import Cause
from winnow_gateway.reranking import AnytimeReranker, Reranking


class Bench:
    """A reranker and what watches over it."""

    def __init__(self) -> None:
        self.reranker = FakeReranker()
        self.breaker = CircuitBreaker(clock=time.perf_counter)
        self.book = CostBook()
        self.anytime = AnytimeReranker(
            reranker=self.reranker, breaker=self.breaker, book=self.book, clock=time.perf_counter
        )

    async def run(self, passages: Sequence[str], *, state: Reranking | None = None, seconds: float = 10.0) -> Reranking:
        state = state or Reranking()
        start, now = len(state.scores), time.perf_counter()
        cost = self.book.costs("docs", now=now).rerank
        async for _ in self.anytime.run(
            state,
            collection="docs",
            query="cat",
            start=start,
            passages=passages[start:],
            cost=cost,
            stop_at=now + seconds,
        ):
            pass
        return state


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
