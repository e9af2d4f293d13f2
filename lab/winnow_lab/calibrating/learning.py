"""From what was collected to what is stored with the model, and the report on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from winnow_gateway.ordering import Mixing
from winnow_inference.models import learned as stored
from winnow_lab.calibrating.calibrators import Calibrated, CalibrationFigure, calibrate, judge, sample
from winnow_lab.calibrating.candidates import JudgedCandidates, Source
from winnow_lab.calibrating.rankings import KINDS, Ranking, ranking
from winnow_lab.calibrating.validating import Figure, Learning, check, learn
from winnow_rpc.faults import FailedPrecondition, InvalidArgument

_FEWEST_QUERIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Queries of one split of a set."""

    name: str
    """Name of the set: its domain."""
    split: str
    queries: Sequence[JudgedCandidates]
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was learned, and how good it is."""

    reranker_fingerprint: str
    embedder_fingerprint: str
    depth: int
    learned_from: Mapping[str, int]
    """Set and split → its queries."""
    checked_on: Mapping[str, int]
    """Set and split → its queries, from which nothing was learned."""
    learnings: Sequence[Learning]
    """One for each kind of retrieval."""
    checks: Mapping[str, Sequence[Figure]]
    """Kind of retrieval → orders on the queries to check on."""
    calibrated: Calibrated
    calibration_checked: tuple[CalibrationFigure, CalibrationFigure] | None
    """Before and after, on the queries to check on; None if there are none."""


def learn_all(parts: Sequence[Part], checks: Sequence[Part], *, rank_mixing: stored.Mixing) -> Report:
    """Learns mixing for every kind of retrieval, and calibration from the candidates of hybrid retrieval.

    Raises InvalidArgument if there is too little to learn from, FailedPrecondition if the parts are of different
    models.
    """
    source = _common_source([*parts, *checks])
    ranks = Mixing(rank_mixing.k, rank_mixing.retrieval_weight, rank_mixing.rerank_weight)
    rankings = {kind: _rankings(parts, kind) for kind in KINDS}
    to_check = {kind: _rankings(checks, kind) for kind in KINDS}
    teaching = sum(each.gains.any() for each in rankings["hybrid"])
    if teaching < _FEWEST_QUERIES:
        raise InvalidArgument(
            f"{teaching} queries have a relevant document among their candidates; at least {_FEWEST_QUERIES} must",
            reason="TOO_FEW_QUERIES",
        )
    learnings = [
        learn(of_kind, kind, rank_mixing=ranks)
        for kind, of_kind in rankings.items()
        if sum(each.gains.any() for each in of_kind) >= _FEWEST_QUERIES
    ]
    calibrated = calibrate(rankings["hybrid"])
    checked = None
    if to_check["hybrid"]:
        held_out = sample(to_check["hybrid"])
        checked = (
            judge(held_out, stored.Platt(scale=1.0).probability(held_out.logits, "identity")),
            judge(held_out, calibrated.calibration.probability(held_out.logits, "identity")),
        )
    return Report(
        reranker_fingerprint=source.reranker_fingerprint,
        embedder_fingerprint=source.embedder_fingerprint,
        depth=source.depth,
        learned_from=_counts(parts),
        checked_on=_counts(checks),
        learnings=learnings,
        checks={each.kind: check(to_check[each.kind], each.mixing, rank_mixing=ranks) for each in learnings if checks},
        calibrated=calibrated,
        calibration_checked=checked,
    )


def to_store(report: Report, *, rank_mixing: stored.Mixing, date: str) -> stored.Learned:
    """What is stored with the model."""
    mixings = {each.kind: stored.ScoreMixing(**asdict(each.mixing)) for each in report.learnings if each.mixing}
    calibrated = report.calibrated
    return stored.Learned(
        mixing=rank_mixing,
        score_mixings=stored.ScoreMixings(**mixings),
        calibration=calibrated.calibration,
        learned={
            "date": date,
            "model_fingerprint": report.reranker_fingerprint,
            "embedder_fingerprint": report.embedder_fingerprint,
            "depth": report.depth,
            "learned_from": dict(report.learned_from),
            "checked_on": dict(report.checked_on),
            "mixing": {
                each.kind: {
                    "features": each.chosen.family,
                    "relative_gain_ndcg_at_10": round(each.chosen.relative_gain, 4),
                    "relative_gain_domain_left_out": _rounded(each.chosen.relative_gain_left_out),
                }
                for each in report.learnings
            },
            "calibration": {
                "method": calibrated.method,
                "relevant_share": round(calibrated.relevant_share, 4),
                "expected_calibration_error_before": round(calibrated.before.expected_calibration_error, 4),
                "expected_calibration_error_after": round(calibrated.after.expected_calibration_error, 4),
            },
        },
    )


def _rankings(parts: Sequence[Part], kind: str) -> list[Ranking]:
    made = (
        ranking(query, domain=part.name, kind=kind, activation=part.source.activation)
        for part in parts
        for query in part.queries
    )
    return [each for each in made if each]


def _common_source(parts: Sequence[Part]) -> Source:
    first = parts[0].source
    for part in parts:
        if (
            part.source.reranker_fingerprint != first.reranker_fingerprint
            or part.source.embedder_fingerprint != first.embedder_fingerprint
        ):
            raise FailedPrecondition(
                f"candidates of {part.name}:{part.split} were collected with other models than those of "
                f"{parts[0].name}:{parts[0].split}; delete what was collected to do it anew",
                reason="CACHE_MISMATCH",
            )
    return first


def _counts(parts: Sequence[Part]) -> dict[str, int]:
    return {f"{part.name}:{part.split}": len(part.queries) for part in parts}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
