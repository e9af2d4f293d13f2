"""From a reranker's scores to probabilities of relevance, and how far they are off. Pure.

Scores are log-odds everywhere here. Every domain counts the same, whatever its number of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from winnow_inference.models.learned import Calibration, Isotonic, Platt
from winnow_lab.calibrating.candidates import fold_of
from winnow_lab.calibrating.rankings import Floats, Ranking, by_domain

BINS = 15
"""Bins of the calibration error, each of the same weight."""

FOLDS = 5
"""Parts of every domain's queries; each is judged by what was learned from the others."""

_HARDLY_ABOVE = 1.01
_LEAST_PROBABILITY = 1e-4
_MAX_KNOTS = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """Scored candidates, whether they are relevant, and how much each counts."""

    logits: Floats
    relevant: Floats
    """0 or 1."""
    weights: Floats
    """Sum to 1."""
    folds: Floats
    """The fold of each one's query."""

    def only(self, chosen: np.ndarray) -> Sample:
        """Those of them for which `chosen` is true; the weights sum to 1 again."""
        weights = self.weights[chosen]
        return Sample(self.logits[chosen], self.relevant[chosen], weights / weights.sum(), self.folds[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigure:
    """Probabilities against judgements."""

    expected_calibration_error: float
    """Over bins of equal weight: mean distance of the mean probability from the share of the relevant."""
    log_loss: float
    brier_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration and how good it is."""

    calibration: Calibration
    method: str
    """The chosen one of `METHODS`."""
    before: CalibrationFigure
    """The sigmoid of the scores as they are."""
    after: CalibrationFigure
    """By cross-validation over queries."""
    methods: Mapping[str, CalibrationFigure]
    """All that were tried, by cross-validation over queries."""
    relevant_share: float
    """Share of the relevant among the candidates."""
    candidates: int


def sample(rankings: Sequence[Ranking]) -> Sample:
    """All candidates of all queries."""
    domains = by_domain(rankings)
    sizes = {domain: sum(len(each.gains) for each in queries) for domain, queries in domains.items()}
    return Sample(
        logits=np.concatenate([each.logits for each in rankings]),
        relevant=np.concatenate([(each.gains > 0).astype(np.float64) for each in rankings]),
        weights=np.concatenate([np.full(len(each.gains), 1 / len(domains) / sizes[each.domain]) for each in rankings]),
        folds=np.concatenate([np.full(len(each.gains), fold_of(each.query_id, FOLDS)) for each in rankings]),
    )


def calibrate(rankings: Sequence[Ranking]) -> Calibrated:
    """Takes the simplest method whose log loss, on queries that it was not learned from, is hardly above the least, and
    learns it from all."""
    everything = sample(rankings)
    figures = {method: judge(everything, _out_of_fold(everything, learn)) for method, learn in METHODS.items()}
    least = min(figure.log_loss for figure in figures.values())
    method = next(name for name, figure in figures.items() if figure.log_loss <= _HARDLY_ABOVE * least)
    return Calibrated(
        calibration=METHODS[method](everything),
        method=method,
        before=judge(everything, _sigmoid(everything.logits)),
        after=figures[method],
        methods=figures,
        relevant_share=float(everything.weights @ everything.relevant),
        candidates=len(everything.logits),
    )


def judge(scored: Sample, probabilities: Floats) -> CalibrationFigure:
    """Probabilities of a sample's candidates against its judgements."""
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    losses = -(scored.relevant * np.log(clipped) + (1 - scored.relevant) * np.log1p(-clipped))
    return CalibrationFigure(
        expected_calibration_error=expected_calibration_error(probabilities, scored.relevant, scored.weights),
        log_loss=float(scored.weights @ losses),
        brier_score=float(scored.weights @ (probabilities - scored.relevant) ** 2),
    )


def expected_calibration_error(probabilities: Floats, relevant: Floats, weights: Floats, *, bins: int = BINS) -> float:
    """Candidates by rising probability in bins of equal weight; the weighted mean over the bins of the distance between
    the mean probability and the share of the relevant."""
    order = np.argsort(probabilities, kind="stable")
    ordered = weights[order] / weights.sum()
    # The middle of each candidate's own weight says which bin it is in.
    places = np.minimum(((np.cumsum(ordered) - ordered / 2) * bins).astype(int), bins - 1)
    distances = np.bincount(places, ordered * (probabilities - relevant)[order], minlength=bins)
    return float(np.abs(distances).sum())


def platt(scored: Sample) -> Platt:
    """Scale and bias of the least log loss."""
    return _scaled(scored, with_bias=True)


def temperature(scored: Sample) -> Platt:
    """The scale of the least log loss, without a bias."""
    return _scaled(scored, with_bias=False)


def isotonic(scored: Sample) -> Isotonic:
    """Rising steps of the least squared error, as straight lines between knots."""
    regression = IsotonicRegression(y_min=_LEAST_PROBABILITY, y_max=1 - _LEAST_PROBABILITY, out_of_bounds="clip").fit(
        scored.logits, scored.relevant, sample_weight=scored.weights
    )
    scores, probabilities = regression.X_thresholds_, regression.y_thresholds_
    if len(scores) > _MAX_KNOTS:
        kept = np.unique(np.linspace(0, len(scores) - 1, _MAX_KNOTS).round().astype(int))
        scores, probabilities = scores[kept], probabilities[kept]
    if len(scores) == 1:
        # All scores are the same: one probability for all, but a line needs two ends.
        scores, probabilities = np.array([scores[0], scores[0] + 1]), np.repeat(probabilities, 2)
    return Isotonic(scores=tuple(map(float, scores)), probabilities=tuple(map(float, probabilities)))


METHODS: Mapping[str, Callable[[Sample], Calibration]] = {
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
}
"""Ways to learn a calibration, the simplest first."""


def _out_of_fold(scored: Sample, learn: Callable[[Sample], Calibration]) -> Floats:
    probabilities = np.empty(len(scored.logits))
    for fold in range(FOLDS):
        inside = scored.folds == fold
        learned = learn(scored if inside.all() or not inside.any() else scored.only(~inside))
        probabilities[inside] = learned.probability(scored.logits[inside], "identity")
    return probabilities


def _scaled(scored: Sample, *, with_bias: bool) -> Platt:
    columns = np.stack((scored.logits, np.ones(len(scored.logits))), axis=1)[:, : 2 if with_bias else 1]

    def loss_and_gradient(weights: Floats) -> tuple[float, Floats]:
        logits = columns @ weights
        losses = np.logaddexp(0.0, logits) - scored.relevant * logits
        errors = (_sigmoid(logits) - scored.relevant) * scored.weights
        return float(scored.weights @ losses), columns.T @ errors

    start = np.array([1.0, 0.0][: columns.shape[1]])
    bounds = [(1e-3, None), (None, None)][: columns.shape[1]]
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    scale, bias = (*found.x.tolist(), 0.0)[:2]
    return Platt(scale=scale, bias=bias)


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * logits))
