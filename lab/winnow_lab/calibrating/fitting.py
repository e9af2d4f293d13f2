"""Weights of a mixing of scores, by listwise softmax regression (ListNet). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from winnow_gateway.mixing import FEATURES, ScoreMixing
from winnow_lab.calibrating.rankings import Floats, Ranking, by_domain

_RERANKER = ("rerank", "rerank_sigmoid")
_PLACES = ("retrieval_rank", "dense_absent", "lexical_absent")
_ORDERS = ("dense", "lexical")

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "log-odds": ("rerank", *_ORDERS),
    "sigmoid": ("rerank_sigmoid", *_ORDERS),
    "log-odds and places": ("rerank", *_ORDERS, *_PLACES),
    "sigmoid and places": ("rerank_sigmoid", *_ORDERS, *_PLACES),
}
"""Which features a mixing may have: few, so that a few hundred queries are enough to weigh them."""

_OF_ONE_ORDER = {
    "hybrid": frozenset(FEATURES),
    "dense": frozenset((*_RERANKER, "dense", "retrieval_rank")),
    "lexical": frozenset((*_RERANKER, "lexical", "retrieval_rank")),
}

PENALTY = 0.3
"""Weight of the squared weights, of standardised features, beside the mean loss of a query."""


def features_of(family: str, kind: str) -> tuple[str, ...]:
    """The features that a family has where the first stage looked at that."""
    return tuple(name for name in FAMILIES[family] if name in _OF_ONE_ORDER[kind])


def fit(rankings: Sequence[Ranking], features: Sequence[str], *, penalty: float = PENALTY) -> ScoreMixing:
    """The weights under which the softmax of the mixed scores is nearest to the grades' shares, by cross-entropy.

    Every domain counts the same, and every query of a domain; queries without a relevant candidate teach nothing. The
    reranker's weight is never under 0, and never 0 altogether.
    """
    lists = _Lists.of(rankings, features)
    bounds = [(0.0, None) if name in _RERANKER else (None, None) for name in features]
    found = minimize(
        lists.loss_and_gradient, np.zeros(len(features)), args=(penalty,), jac=True, method="L-BFGS-B", bounds=bounds
    )
    weights = dict(zip(features, (found.x / lists.deviations).tolist(), strict=True))
    rerank = next(name for name in features if name in _RERANKER)
    if not weights[rerank] > 0:
        # What the reranker says is worth nothing here; it still breaks ties.
        weights[rerank] = 1e-6
    return ScoreMixing(**weights)


def mixed(ranking: Ranking, mixing: ScoreMixing) -> Floats:
    """The mixed scores of a query's candidates."""
    weights = np.array([getattr(mixing, name) for name in FEATURES])
    scores: Floats = ranking.features @ weights
    return scores


@dataclass(frozen=True, slots=True)
class _Lists:
    """All queries side by side, filled up to the longest."""

    features: Floats
    """[queries, candidates, features], each feature divided by its deviation."""
    targets: Floats
    """[queries, candidates]: a query's grades, divided by their sum."""
    padding: Floats
    """[queries, candidates]: 0 for a candidate, minus infinity for none."""
    weights: Floats
    """[queries]: how much each counts; 1 together."""
    deviations: Floats
    """[features]"""

    @staticmethod
    def of(rankings: Sequence[Ranking], features: Sequence[str]) -> _Lists:
        columns = [FEATURES.index(name) for name in features]
        teaching = [each for each in rankings if each.gains.any()]
        domains = by_domain(teaching)
        longest = max((len(each.gains) for each in teaching), default=0)
        shape = (len(teaching), longest)
        made = _Lists(
            features=np.zeros((*shape, len(features))),
            targets=np.zeros(shape),
            padding=np.full(shape, -np.inf),
            weights=np.array([1 / len(domains) / len(domains[each.domain]) for each in teaching]),
            deviations=_deviations(domains, columns),
        )
        for row, each in enumerate(teaching):
            count = len(each.gains)
            made.features[row, :count] = each.features[:, columns] / made.deviations
            made.targets[row, :count] = each.gains / each.gains.sum()
            made.padding[row, :count] = 0.0
        return made

    def loss_and_gradient(self, weights: Floats, penalty: float) -> tuple[float, Floats]:
        scores = self.features @ weights + self.padding
        scores -= scores.max(axis=1, keepdims=True)
        exponentials = np.exp(scores)
        sums = exponentials.sum(axis=1, keepdims=True)
        logs = np.where(np.isfinite(scores), scores, 0.0) - np.log(sums)
        loss = -(self.weights @ (self.targets * logs).sum(axis=1)) + 0.5 * penalty * (weights @ weights)
        errors = (exponentials / sums - self.targets) * self.weights[:, None]
        gradient: Floats = np.einsum("qc,qcf->f", errors, self.features) + penalty * weights
        return float(loss), gradient


def _deviations(domains: Mapping[str, Sequence[Ranking]], columns: Sequence[int]) -> Floats:
    """Deviation of each feature within a query: what is the same for all candidates orders nothing."""
    if not domains:
        return np.ones(len(columns))
    variances = np.mean(
        [np.mean([each.features[:, columns].var(axis=0) for each in queries], axis=0) for queries in domains.values()],
        axis=0,
    )
    return np.where(variances > 0, np.sqrt(variances), 1.0)
