"""What stages take is learned from what they took."""

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from winnow_gateway.costs import COLD_COSTS, COLD_RERANK_COST, CostBook, FadingQuantile, RerankCost, RerankFit

rerank_costs = st.builds(
    RerankCost,
    fixed=st.floats(0, 1),
    per_token=st.floats(0, 1e-2),
    tokens_per_passage=st.floats(1, 512),
    surcharge=st.floats(1, 10),
)


@given(rerank_costs, st.floats(0, 60), st.integers(0, 2000))
def test_what_is_affordable_fits_and_one_more_does_not(cost: RerankCost, seconds: float, most: int) -> None:
    count = cost.affordable(seconds, most=most)
    assert 0 <= count <= most
    assert cost.seconds(count) <= seconds
    if count < most:
        # A sum of a few floats, up to a minute.
        assert cost.seconds(count + 1) > seconds - 1e-9


@given(rerank_costs, st.integers(0, 1000))
def test_more_passages_never_take_less(cost: RerankCost, passages: int) -> None:
    assert cost.seconds(passages) <= cost.seconds(passages + 1)


def test_a_quantile_is_of_the_newest_numbers() -> None:
    quantile = FadingQuantile(0.9)
    assert quantile.value is None
    for number in range(1, 101):
        quantile.observe(number / 100)
    assert quantile.value == pytest.approx(0.98, abs=0.03), "newer and here larger ones count for more"
    for _ in range(100):
        quantile.observe(5.0)
    assert quantile.value == 5.0


def fit(
    *, fixed: float, per_token: float, count: int, noise: float = 0.0, learnt: RerankFit | None = None
) -> RerankFit:
    chance = random.Random(1)
    learnt = learnt or RerankFit()
    for _ in range(count):
        tokens = chance.uniform(200, 12_000)
        learnt.observe(tokens, (fixed + per_token * tokens) * chance.lognormvariate(0, noise))
    return learnt


def test_a_steady_machine_is_known_after_a_few_searches() -> None:
    learnt = fit(fixed=0.02, per_token=1e-4, count=60)
    assert learnt.fixed == pytest.approx(0.02, rel=0.05)
    assert learnt.per_token == pytest.approx(1e-4, rel=0.05)
    assert learnt.surcharge == pytest.approx(1.0, abs=0.1)


def test_the_surcharge_covers_nine_of_ten() -> None:
    learnt = fit(fixed=0.02, per_token=1e-4, count=300, noise=0.3)
    chance = random.Random(2)
    cost = RerankCost(learnt.fixed, learnt.per_token, 100.0, learnt.surcharge)
    kept = sum((0.02 + 1e-4 * 5000) * chance.lognormvariate(0, 0.3) <= cost.seconds(50) for _ in range(1000))
    assert 830 < kept < 970


def test_a_machine_that_becomes_slow_is_known_to_be_so_and_recovers() -> None:
    learnt = fit(fixed=0.02, per_token=1e-4, count=100)
    fit(fixed=0.02, per_token=4e-4, count=150, learnt=learnt)
    assert learnt.per_token == pytest.approx(4e-4, rel=0.2)
    fit(fixed=0.02, per_token=1e-4, count=150, learnt=learnt)
    assert learnt.per_token == pytest.approx(1e-4, rel=0.2)


def test_one_search_that_was_held_up_does_not_throw_the_fit_off() -> None:
    learnt = fit(fixed=0.02, per_token=1e-4, count=100)
    learnt.observe(5000, 30.0)
    assert learnt.fixed + learnt.per_token * 5000 < 0.7, "0.52 s before"


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)), max_size=60))
def test_whatever_is_seen_no_cost_is_negative_or_infinite(seen: list[tuple[float, float]]) -> None:
    learnt = RerankFit()
    for tokens, seconds in seen:
        learnt.observe(tokens, seconds)
    assert 0 <= learnt.fixed < float("inf")
    assert 0 <= learnt.per_token < float("inf")
    assert 1 <= learnt.surcharge < float("inf")


def reranked(book: CostBook, model: str, *, per_token: float, collection: str = "docs", now: float = 0.0) -> None:
    for batch in range(1, 21):
        tokens = 500 * batch
        book.reranked(collection, model, passages=5, tokens=500, all_tokens=tokens, seconds=per_token * tokens, now=now)


def test_before_anything_was_seen_the_book_is_hopeful() -> None:
    assert CostBook().costs("docs", now=0) == COLD_COSTS


def test_costs_are_kept_by_model_and_tokens_by_collection() -> None:
    book = CostBook()
    reranked(book, "slow", per_token=1e-3)
    assert book.costs("docs", now=0).rerank.per_token == pytest.approx(1e-3, rel=0.05)
    assert book.costs("docs", now=0).rerank.tokens_per_passage == 100
    assert book.costs("others", now=0).rerank.tokens_per_passage == COLD_RERANK_COST.tokens_per_passage
    reranked(book, "quick", per_token=1e-6)
    assert book.costs("docs", now=0).rerank.per_token < 1e-4
    book.embedded(0.2)
    book.retrieved("docs", 0.3)
    assert (book.costs("docs", now=0).embed_seconds, book.costs("docs", now=0).retrieve_seconds) == (0.2, 0.3)
    assert book.costs("others", now=0).retrieve_seconds == COLD_COSTS.retrieve_seconds


def test_waiting_in_vain_teaches_that_it_takes_longer() -> None:
    book = CostBook()
    reranked(book, "m", per_token=1e-5)
    before = book.costs("docs", now=0).rerank.seconds(1)
    for _ in range(5):
        book.waited_in_vain("docs", seconds=0.05, now=1)
    assert book.costs("docs", now=1).rerank.seconds(1) > 2 * before


def test_hope_is_tried_again_once_reranking_was_too_dear_for_some_seconds() -> None:
    book = CostBook()
    reranked(book, "m", per_token=1e-2, now=10)
    dear = book.costs("docs", now=10).rerank.seconds(1)
    assert book.costs("docs", now=100).rerank.seconds(1) == dear, "nobody was turned away by it"
    book.unaffordable()
    assert book.costs("docs", now=10.9).rerank.seconds(1) == dear
    assert book.costs("docs", now=13).rerank.seconds(1) < 0.1
    assert book.costs("docs", now=13.1).rerank.seconds(1) == dear, "one search tries, not all at once"
    reranked(book, "m", per_token=1e-5, now=14)
    assert book.costs("docs", now=20).rerank.seconds(10) < 0.1, "what one try disproves is forgotten"
