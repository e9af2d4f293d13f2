"""How good a mixing is on queries that it was not learned from, beside other orders. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_lab.calibrating.candidates import fold_of
from winnow_lab.calibrating.fitting import FAMILIES, features_of, fit, mixed
from winnow_lab.calibrating.rankings import Ranking, by_domain
from winnow_relevance import paired_difference

FOLDS = 5
"""Parts of every domain's queries; each is judged by what was learned from the others."""

RETRIEVAL, RERANKER, RANKS, LEARNED, LEFT_OUT = (
    "retrieval",
    "reranker alone",
    "ranks mixed",
    "scores mixed",
    "scores mixed, domain left out",
)
"""Orders, as they are shown; the first is what the others are compared with."""

# Of a normal distribution, 95% lie so many standard errors around the mean.
_INTERVAL = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One order's quality on one domain."""

    domain: str
    order: str
    queries: int
    ndcg_at_10: float
    gain: float
    """Mean difference to retrieval, query by query."""
    gain_standard_error: float
    gain_interval: tuple[float, float]
    """95% interval of the gain, by the normal approximation."""

    @property
    def loses(self) -> bool:
        """Significantly worse than retrieval."""
        return self.gain_interval[1] < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A family of mixings on queries that it was not learned from."""

    family: str
    relative_gain: float
    """Mean over the domains of nDCG@10 against retrieval's, -1 to …; learned from other queries of all domains."""
    relative_gain_left_out: float | None
    """The same, learned from the other domains alone; None for a single domain."""
    figures: Sequence[Figure]

    @property
    def worth(self) -> float:
        """By which families are compared: what is known of known domains, and of unknown ones."""
        gains = [self.relative_gain, self.relative_gain_left_out]
        known = [gain for gain in gains if gain is not None]
        return sum(known) / len(known)

    @property
    def loses(self) -> bool:
        """Significantly worse than retrieval on some domain."""
        return any(figure.loses for figure in self.figures if figure.order == LEARNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What was learned for one kind of retrieval."""

    kind: str
    mixing: ScoreMixing | None
    """None where ranks mixed are at least as good, and lose on no domain."""
    chosen: Judged
    families: Sequence[Judged]
    """All that were tried."""
    figures: Sequence[Figure]
    """The chosen one beside other orders, on the queries that were learned from, each judged by what was not learned
    from it."""


def learn(rankings: Sequence[Ranking], kind: str, *, rank_mixing: Mixing) -> Learning:
    """Tries every family, takes the one that is worth most, and learns it from all queries.

    One that loses significantly on a domain is taken only if all do.
    """
    families = [judge(rankings, family, kind) for family in FAMILIES]
    chosen = max(families, key=lambda family: (not family.loses, family.worth))
    others = compare(
        rankings,
        {
            RETRIEVAL: Ranking.retrieval_scores,
            RERANKER: lambda ranking: ranking.logits,
            RANKS: lambda ranking: ranking.rank_mixed_scores(rank_mixing),
        },
    )
    mixing: ScoreMixing | None = fit(rankings, features_of(chosen.family, kind))
    ranks_lose = any(figure.loses for figure in others if figure.order == RANKS)
    if relative_gain(others, RANKS) >= chosen.relative_gain and not ranks_lose:
        mixing = None
    return Learning(kind=kind, mixing=mixing, chosen=chosen, families=families, figures=[*others, *chosen.figures])


def judge(rankings: Sequence[Ranking], family: str, kind: str) -> Judged:
    """A family by cross-validation over queries and, where there are several domains, over domains."""
    features = features_of(family, kind)
    folds = {
        fold: fit([each for each in rankings if fold_of(each.query_id, FOLDS) != fold], features)
        for fold in range(FOLDS)
    }
    figures = compare(
        rankings,
        {
            RETRIEVAL: Ranking.retrieval_scores,
            LEARNED: lambda each: mixed(each, folds[fold_of(each.query_id, FOLDS)]),
        },
    )
    gain, left_out_gain = relative_gain(figures, LEARNED), None
    domains = by_domain(rankings)
    if len(domains) > 1:
        left_out = {domain: fit([each for each in rankings if each.domain != domain], features) for domain in domains}
        figures += compare(
            rankings,
            {RETRIEVAL: Ranking.retrieval_scores, LEFT_OUT: lambda each: mixed(each, left_out[each.domain])},
        )
        left_out_gain = relative_gain(figures, LEFT_OUT)
    return Judged(
        family=family,
        relative_gain=gain,
        relative_gain_left_out=left_out_gain,
        figures=[figure for figure in figures if figure.order != RETRIEVAL],
    )


def check(rankings: Sequence[Ranking], mixing: ScoreMixing | None, *, rank_mixing: Mixing) -> list[Figure]:
    """Orders on queries that nothing was learned from."""
    orders: dict[str, Callable[[Ranking], np.ndarray]] = {
        RETRIEVAL: Ranking.retrieval_scores,
        RERANKER: lambda ranking: ranking.logits,
        RANKS: lambda ranking: ranking.rank_mixed_scores(rank_mixing),
    }
    if mixing:
        orders[LEARNED] = lambda ranking: mixed(ranking, mixing)
    return compare(rankings, orders)


def compare(rankings: Sequence[Ranking], orders: Mapping[str, Callable[[Ranking], np.ndarray]]) -> list[Figure]:
    """A figure for each domain and order; `orders` gives the scores of a query's candidates, retrieval's among them."""
    figures = []
    for domain, queries in by_domain(rankings).items():
        retrieval = [query.ndcg(orders[RETRIEVAL](query)) for query in queries]
        for order, scores in orders.items():
            values = [query.ndcg(scores(query)) for query in queries]
            difference = paired_difference(values, retrieval)
            reach = _INTERVAL * difference.standard_error
            figures.append(
                Figure(
                    domain=domain,
                    order=order,
                    queries=len(queries),
                    ndcg_at_10=float(np.mean(values)),
                    gain=difference.mean,
                    gain_standard_error=difference.standard_error,
                    gain_interval=(difference.mean - reach, difference.mean + reach),
                )
            )
    return figures


def relative_gain(figures: Sequence[Figure], order: str) -> float:
    """Mean over the domains of an order's gain over retrieval, as a share of retrieval's nDCG@10."""
    shares = []
    for figure in figures:
        if figure.order == order:
            retrieval = figure.ndcg_at_10 - figure.gain
            shares.append(figure.gain / retrieval if retrieval > 0 else 0.0)
    return float(np.mean(shares)) if shares else 0.0
