"""What is recommended of made-up measurements, and how sure that is said to be."""

from __future__ import annotations

import pytest

from tests.unit.lab.advising.made_up import an_option, reranked, retrieval
from winnow_lab.advising.measured import Kind, Situation, pareto
from winnow_lab.advising.recommending import advise, pair_seconds, where_depth_hurts


def situation(*, budget: float = 10.0, corpus_size: int = 5_000, training_queries: int = 0) -> Situation:
    return Situation(budget=budget, measured_size=5_000, corpus_size=corpus_size, training_queries=training_queries)


def test_the_smallest_depth_within_the_noise_of_the_best_is_recommended() -> None:
    options = [*retrieval(), *reranked({10: 0.70, 20: 0.748, 50: 0.75, 100: 0.751})]
    advice = advise(options, situation())
    assert advice.chosen.name == "hybrid, rerank 20"
    assert advice.best.name == "hybrid, rerank 100"
    assert advice.keeps_budget
    assert "does with 20 candidates" in advice.reason
    assert advice.sureness.compared_with == "hybrid"
    assert advice.sureness.difference.is_gain


def test_a_depth_that_is_clearly_better_is_worth_its_time() -> None:
    options = [*retrieval(), *reranked({10: 0.70, 20: 0.73, 50: 0.76, 100: 0.80})]
    assert advise(options, situation()).chosen.name == "hybrid, rerank 100"


def test_the_budget_is_kept_by_the_slow_searches_too() -> None:
    options = [*retrieval(), *reranked({10: 0.70, 20: 0.75, 50: 0.80})]
    # Half of those at depth 20 take 90 ms, one in twenty 135.
    assert advise(options, situation(budget=0.140)).chosen.name == "hybrid, rerank 20"
    advice = advise(options, situation(budget=0.130))
    assert advice.chosen.name == "hybrid, rerank 10"
    assert any("hybrid, rerank 20" in rule and "more time" in rule for rule in advice.rules)


def test_where_nothing_keeps_the_budget_the_quickest_is_named_and_it_is_said() -> None:
    advice = advise(retrieval(), situation(budget=0.002))
    assert (advice.chosen.name, advice.keeps_budget) == ("BM25", False)
    assert "nothing that was measured answers within 2 ms" in advice.reason


def test_retrieval_alone_is_recommended_where_reranking_wins_nothing() -> None:
    advice = advise([*retrieval(), *reranked({20: 0.652, 100: 0.655})], situation())
    assert advice.chosen.name == "hybrid"
    assert "no reranking" in advice.reason
    assert advice.sureness.compared_with == "hybrid, rerank 100", "what was passed over is what it is weighed against"


def test_of_first_stages_that_are_alike_the_better_on_average_is_taken() -> None:
    advice = advise(retrieval(dense=0.651, hybrid=0.65), situation())
    assert advice.chosen.name == "dense"


def test_a_depth_that_hurts_is_warned_of() -> None:
    options = [*retrieval(), *reranked({10: 0.70, 20: 0.74, 100: 0.69})]
    warnings = where_depth_hurts(options, "nDCG@10")
    assert len(warnings) == 1
    assert warnings[0].startswith("hybrid, rerank 100 is worse than hybrid, rerank 20 by 0.050 nDCG@10")
    assert warnings[0].endswith("depth hurts")
    assert advise(options, situation()).chosen.name == "hybrid, rerank 20"


def test_reranking_that_hurts_at_any_depth_is_warned_of_and_mixed_is_a_family_of_its_own() -> None:
    mixed = [an_option("hybrid, rerank 20, mixed", quality=0.66, millis=90, depth=20, mixed=True)]
    warnings = where_depth_hurts([*retrieval(), *reranked({20: 0.55}), *mixed], "nDCG@10")
    assert [warning.partition(" is worse")[0] for warning in warnings] == ["hybrid, rerank 20"]
    assert warnings[0].endswith("reranking hurts")


def test_exhaustive_is_taken_at_the_size_that_will_be_searched() -> None:
    whole = an_option("exhaustive", quality=0.90, millis=200, kind=Kind.EXHAUSTIVE, stage="", depth=5_000)
    options = [*retrieval(), *reranked({20: 0.70}), whole]
    assert advise(options, situation(budget=1.0)).chosen.name == "exhaustive"
    twice = advise(options, situation(budget=0.5, corpus_size=10_000))
    assert twice.chosen.name == "hybrid, rerank 20", "300 ms at the measured size are 600 at twice that"
    assert any("does not keep the budget: 600 ms" in rule for rule in twice.rules)
    large = advise(options, situation(budget=100.0, corpus_size=10_001))
    assert large.chosen.name == "hybrid, rerank 20"
    assert any("too many for the cross-encoder" in rule for rule in large.rules)


def test_exhaustive_that_was_not_measured_is_estimated() -> None:
    options = [*retrieval(), *reranked({20: 0.70, 100: 0.71})]
    assert pair_seconds(options) == pytest.approx(0.004)
    assert any("20 s a search: too long" in rule for rule in advise(options, situation(budget=1.0)).rules)
    assert any("measure it with --exhaustive" in rule for rule in advise(options, situation(budget=30.0)).rules)
    assert pair_seconds(retrieval()) is None


def test_few_queries_are_not_trusted_and_it_is_said_how_many_more_would_do() -> None:
    options = [*retrieval(queries=20), *reranked({20: 0.67}, queries=20)]
    advice = advise(options, situation())
    assert advice.chosen.name == "hybrid"
    assert any(warning.startswith("20 judged queries") for warning in advice.warnings)
    sureness = advice.sureness
    assert sureness.queries == 20
    assert sureness.needed[0.01] > sureness.needed[0.02] > sureness.needed[0.05]
    assert sureness.needed[0.01] > 20
    assert 0.01 < sureness.detectable < 0.2


def test_more_documents_than_were_measured_are_minded() -> None:
    warnings = advise(retrieval(), situation(corpus_size=2_000_000)).warnings
    assert any("among 2,000,000 there are more to be mistaken" in warning for warning in warnings)


@pytest.mark.parametrize(("found", "said"), [(0.6, "finding better candidates"), (0.95, "a better reranker can win")])
def test_what_the_candidates_allow_is_told(found: float, said: str) -> None:
    deep = an_option("hybrid, rerank 100", quality=0.7, millis=410, depth=100, found=found)
    assert any(said in rule for rule in advise([*retrieval(), deep], situation()).rules)


@pytest.mark.parametrize(
    ("count", "said"), [(5_000, "`winnow train bi-encoder`"), (300, "there are 300"), (0, "none in a split train")]
)
def test_training_is_proposed_where_there_is_enough_to_train_on(count: int, said: str) -> None:
    rules = advise(retrieval(), situation(training_queries=count)).rules
    assert any(said in rule for rule in rules)


def test_the_front_is_what_nothing_beats_without_being_slower() -> None:
    options = [*retrieval(), *reranked({10: 0.64, 20: 0.72, 50: 0.71})]
    assert [option.name for option in pareto(options)] == ["BM25", "dense", "hybrid", "hybrid, rerank 20"]


def test_without_measurements_there_is_no_advice() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        advise([], situation())
