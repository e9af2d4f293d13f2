"""The report on what was learned, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from winnow_client.cli.output import table
from winnow_lab.calibrating.calibrators import BINS, Calibrated, CalibrationFigure
from winnow_lab.calibrating.learning import Report
from winnow_lab.calibrating.validating import RETRIEVAL, Figure, Learning, relative_gain


def plain(report: Report) -> dict[str, Any]:
    """All of it for a machine."""
    return {**asdict(report), "calibrated": _plain_calibrated(report.calibrated)}


def tables(report: Report) -> Iterator[Table | str]:
    """Tables, and sentences between them."""
    yield (
        f"Learned from {_named(report.learned_from)}, {report.depth} candidates a query; "
        f"checked on {_named(report.checked_on) or 'nothing besides'}."
    )
    for learning in report.learnings:
        yield _figures(
            learning.figures, f"{learning.kind}: on the queries that were learned from, each left out in its turn"
        )
        if learning.kind in report.checks:
            yield _figures(report.checks[learning.kind], f"{learning.kind}: on the queries to check on")
        yield _weights(learning)
    yield _calibration(report)


def _plain_calibrated(calibrated: Calibrated) -> dict[str, Any]:
    return {**asdict(calibrated), "calibration": calibrated.calibration.model_dump(mode="json")}


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} queries)" for name, count in counts.items())


def _figures(figures: Sequence[Figure], title: str) -> Table:
    domains = list(dict.fromkeys(figure.domain for figure in figures))
    made = table("nDCG@10", *domains, "mean gain", right=(*domains, "mean gain"))
    made.title = title
    by_place = {(figure.order, figure.domain): figure for figure in figures}
    for order in dict.fromkeys(figure.order for figure in figures):
        cells = [_cell(by_place.get((order, domain))) for domain in domains]
        mean = "" if order == RETRIEVAL else f"{relative_gain(figures, order):+.1%}"
        made.add_row(order, *cells, mean)
    return made


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    value = f"{figure.ndcg_at_10:.3f}"
    if figure.order == RETRIEVAL:
        return value
    low, high = figure.gain_interval
    return f"{value}  {figure.gain:+.3f} [{low:+.3f}, {high:+.3f}]"


def _weights(learning: Learning) -> str:
    tried = "; ".join(
        f"{each.family} {each.relative_gain:+.1%}"
        + ("" if each.relative_gain_left_out is None else f" ({each.relative_gain_left_out:+.1%} left out)")
        for each in learning.families
    )
    if learning.mixing is None:
        return f"{learning.kind}: ranks mixed are as good, so no mixing of scores is stored. Tried: {tried}."
    weights = ", ".join(f"{name} {value:.3g}" for name, value in asdict(learning.mixing).items() if value)
    return f"{learning.kind}: {learning.chosen.family}: {weights}. Tried: {tried}."


def _calibration(report: Report) -> Table:
    calibrated = report.calibrated
    numbers = ("ECE", "log loss", "Brier score")
    made = table("probabilities", *numbers, right=numbers)
    made.title = (
        f"{calibrated.candidates} candidates, {calibrated.relevant_share:.1%} of them relevant; "
        f"ECE over {BINS} bins of equal weight"
    )

    def add(name: str, figure: CalibrationFigure) -> None:
        made.add_row(
            name,
            f"{figure.expected_calibration_error:.4f}",
            f"{figure.log_loss:.4f}",
            f"{figure.brier_score:.4f}",
        )

    add("sigmoid of the score", calibrated.before)
    for method, figure in calibrated.methods.items():
        add(f"{method}, cross-validated" + (" (chosen)" if method == calibrated.method else ""), figure)
    if report.calibration_checked:
        before, after = report.calibration_checked
        add("sigmoid of the score, queries to check on", before)
        add(f"{calibrated.method}, queries to check on", after)
    return made
