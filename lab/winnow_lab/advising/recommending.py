"""What to recommend, and how sure that is. Pure: decides from what was measured, and measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from winnow_gateway.planning import MAX_EXHAUSTIVE
from winnow_lab.advising.measured import Kind, Option, Situation
from winnow_relevance import Difference, detectable_difference, difference, queries_needed

ENOUGH_TO_TRAIN = 1_000
"""Judged queries with which training a bi-encoder is worth a try."""
FEW_QUERIES = 50
"""Fewer judged queries than this tell large differences alone."""
WELL_FOUND = 0.9
"""Share of relevant documents among the candidates, under which more is lost before reranking than by it."""
SHOWN_DIFFERENCES = (0.01, 0.02, 0.05)
"""Differences for which is said how many queries would show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sureness:
    """How well the recommendation is known."""

    queries: int
    compared_with: str
    """The option that the recommendation was weighed against."""
    difference: Difference
    """The recommended option less that one."""
    detectable: float
    """The least true difference that so many queries show four times of five."""
    needed: dict[float, int]
    """Difference → queries that would show it four times of five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do."""

    chosen: Option
    best: Option
    """The best on average among those inside the budget, or of all where none is."""
    keeps_budget: bool
    reason: str
    """Why this one, in a sentence or two."""
    warnings: Sequence[str]
    """What to keep one's hands off, or to mind."""
    rules: Sequence[str]
    """What else is known to hold, applied to this set."""
    sureness: Sureness


def advise(options: Sequence[Option], situation: Situation) -> Advice:
    """Recommends the cheapest option whose quality is within noise of the best that keeps the budget.

    Cheapest is the least depth, and of the same depth the best on average. Within noise: the paired difference to the
    best is no loss: its interval reaches 0 or above, or its p is above 0.05. Raises ValueError where there are no
    options.
    """
    if not options:
        raise ValueError("nothing was measured")
    at_size = [_at_size(option, situation) for option in options]
    possible = [option for option in at_size if not _too_large(option, situation)]
    inside = [option for option in possible if option.latency.p95 <= situation.budget]
    if not inside:
        chosen = min(possible, key=lambda option: option.latency.p95)
        best = max(possible, key=lambda option: option.quality.mean)
        reason = (
            f"nothing that was measured answers within {_millis(situation.budget)} for 95% of the searches; "
            f"{chosen.name} comes nearest with {_millis(chosen.latency.p95)}"
        )
    else:
        best = max(inside, key=lambda option: (option.quality.mean, -option.depth))
        alike = [option for option in inside if not difference(option.values, best.values).is_loss]
        chosen = min(alike, key=lambda option: (option.depth, -option.quality.mean))
        reason = _reason(chosen, best, situation)
    return Advice(
        chosen=chosen,
        best=best,
        keeps_budget=bool(inside),
        reason=reason,
        warnings=[*_few(chosen), *where_depth_hurts(at_size, situation.measure), *_size(situation)],
        rules=[
            *_more_time_rule(chosen, possible, situation),
            *_exhaustive_rule(at_size, situation),
            *_candidates_rule(at_size, situation),
            *_training_rule(at_size, situation),
        ],
        sureness=_sureness(chosen, best, possible),
    )


def where_depth_hurts(options: Sequence[Option], measure: str) -> list[str]:
    """A warning for each way of reranking that is worse than a shallower one, or than its first stage alone."""

    def family(option: Option) -> tuple[str, bool]:
        return option.stage, option.mixed

    warnings = []
    retrieval = {option.stage: option for option in options if not option.reranks}
    two_stage = sorted((option for option in options if option.kind is Kind.TWO_STAGE), key=family)
    for (stage, _), members in groupby(two_stage, key=family):
        shallower = [retrieval[stage]] if stage in retrieval else []
        for option in sorted(members, key=lambda each: each.depth):
            if shallower:
                better = max(shallower, key=lambda each: each.quality.mean)
                found = difference(option.values, better.values)
                if found.is_loss:
                    warnings.append(
                        f"{option.name} is worse than {better.name} by {-found.mean:.3f} {measure} "
                        f"({-found.high:.3f} to {-found.low:.3f}): {'depth' if better.reranks else 'reranking'} hurts"
                    )
            shallower.append(option)
    return warnings


def pair_seconds(options: Sequence[Option]) -> float | None:
    """What one more candidate takes, from the deepest two-stage search and its first stage; None where unknown."""
    retrieval = {option.stage: option for option in options if not option.reranks}
    deep = [option for option in options if option.kind is Kind.TWO_STAGE and option.stage in retrieval]
    if not deep:
        return None
    deepest = max(deep, key=lambda option: option.depth)
    return max(0.0, deepest.latency.p50 - retrieval[deepest.stage].latency.p50) / deepest.depth


def _at_size(option: Option, situation: Situation) -> Option:
    if option.kind is not Kind.EXHAUSTIVE:
        return option
    factor = situation.corpus_size / situation.measured_size
    return replace(option, depth=situation.corpus_size, latency=option.latency.scaled(factor))


def _too_large(option: Option, situation: Situation) -> bool:
    return option.kind is Kind.EXHAUSTIVE and situation.corpus_size > MAX_EXHAUSTIVE


def _reason(chosen: Option, best: Option, situation: Situation) -> str:
    took = f"answers within {_millis(chosen.latency.p95)} for 95% of the searches"
    if chosen is best:
        return f"{chosen.name} is the best on average of all that keep the budget, and {took}"
    found = difference(chosen.values, best.values)
    return (
        f"{best.name} is {-found.mean:.3f} {situation.measure} better on average, which these queries do not tell from "
        f"chance ({-found.high:+.3f} to {-found.low:+.3f}); {chosen.name} does with "
        f"{f'{chosen.depth} candidates' if chosen.depth else 'no reranking'}, and {took}"
    )


def _sureness(chosen: Option, best: Option, options: Sequence[Option]) -> Sureness:
    retrieval = [option for option in options if not option.reranks and option is not chosen]
    if chosen is not best and not chosen.reranks:
        other = best
    elif retrieval:
        other = max(retrieval, key=lambda option: option.quality.mean)
    else:
        other = best
    paired = chosen.values - other.values
    count = len(paired)
    # One query has no spread: it shows nothing, and tells nothing of how many more would.
    spread = float(paired.std(ddof=1)) if count > 1 else math.inf
    return Sureness(
        queries=count,
        compared_with=other.name,
        difference=difference(chosen.values, other.values),
        detectable=detectable_difference(spread, count),
        needed={shown: queries_needed(spread, shown) for shown in SHOWN_DIFFERENCES} if count > 1 else {},
    )


def _few(chosen: Option) -> list[str]:
    count = len(chosen.values)
    if count >= FEW_QUERIES:
        return []
    return [f"{count} judged queries tell large differences alone: what looks alike here may not be"]


def _size(situation: Situation) -> list[str]:
    if situation.corpus_size <= situation.measured_size:
        return []
    return [
        f"quality was measured among {situation.measured_size:,} documents; among {situation.corpus_size:,} there are "
        f"more to be mistaken for the right one, so every figure will be lower, and deeper candidates worth more"
    ]


def _more_time_rule(chosen: Option, options: Sequence[Option], situation: Situation) -> list[str]:
    """What a larger budget would buy: the quickest option past it that is better beyond chance."""
    outside = [option for option in options if option.latency.p95 > situation.budget and option is not chosen]
    for option in sorted(outside, key=lambda each: each.latency.p95):
        found = difference(option.values, chosen.values)
        if found.is_gain:
            return [
                f"more time would buy more: {option.name} is {found.mean:.3f} {situation.measure} better "
                f"({found.low:.3f} to {found.high:.3f}) within {_millis(option.latency.p95)}"
            ]
    return []


def _exhaustive_rule(options: Sequence[Option], situation: Situation) -> list[str]:
    size = situation.corpus_size
    if size > MAX_EXHAUSTIVE:
        return [
            f"{size:,} documents are too many for the cross-encoder to read for each query: retrieve 100 to 500, "
            f"rerank those"
        ]
    measured = next((option for option in options if option.kind is Kind.EXHAUSTIVE), None)
    if measured:
        fits = "keeps" if measured.latency.p95 <= situation.budget else "does not keep"
        return [
            f"the cross-encoder over all {size:,} documents {fits} the budget: {_millis(measured.latency.p95)} for 95% "
            f"of the searches, {measured.quality.mean:.3f} {situation.measure}"
        ]
    each = pair_seconds(options)
    if each is None:
        return []
    whole = each * size
    if whole > situation.budget:
        return [f"the cross-encoder over all {size:,} documents would take about {_millis(whole)} a search: too long"]
    return [
        f"the cross-encoder over all {size:,} documents would take about {_millis(whole)} a search, which the budget "
        f"allows: measure it with --exhaustive"
    ]


def _candidates_rule(options: Sequence[Option], situation: Situation) -> list[str]:
    two_stage = [option for option in options if option.kind is Kind.TWO_STAGE]
    if not two_stage:
        return []
    deepest = max(two_stage, key=lambda option: (option.depth, option.found))
    said = (
        f"{deepest.found:.0%} of the relevant documents are among the first {deepest.depth} of {deepest.stage}, and "
        f"the best order of those has {deepest.ceiling:.3f} {situation.measure}"
    )
    if deepest.found < WELL_FOUND:
        return [f"{said}: more is to be won by finding better candidates, by another bi-encoder, than by reranking"]
    return [f"{said}: what is missing to that, a better reranker can win"]


def _training_rule(options: Sequence[Option], situation: Situation) -> list[str]:
    count = situation.training_queries
    rule = "a bi-encoder fine-tuned on one's own data often beats a cross-encoder that was not, at no cost per search"
    if count >= ENOUGH_TO_TRAIN:
        return [f"{rule}: the {count:,} judged queries of the split train are enough to try `winnow train bi-encoder`"]
    have = f"there are {count:,}" if count else "the set has none in a split train"
    return [f"{rule}; that takes some {ENOUGH_TO_TRAIN:,} judged queries apart from those here, and {have}"]


def _millis(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.0f} s"
