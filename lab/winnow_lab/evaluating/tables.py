"""Reports for a person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from winnow_client.cli.output import table
from winnow_lab.evaluating.judging import Report
from winnow_relevance import Difference, Estimate


def show(report: Report) -> Table:
    """One set's rows: the headline measure with its interval and its ceiling, the difference, other measures."""
    headline = report.headline
    others = list(report.rows[0].measures)[1:4]
    short = [name.replace("Recall", "R") for name in others]
    columns = (headline, "±", f"less {report.baseline}", "p", "ceiling", "found", *short)
    made = table("system", *columns, right=("system", *columns))
    made.columns[0].justify = "left"
    made.collapse_padding = True
    of = f" of {report.judged_count:,}" if report.judged_count > report.query_count else ""
    made.title = (
        f"{report.name} {report.split}: {report.query_count:,}{of} queries, {report.document_count:,} documents"
    )
    for row in report.rows:
        mean = row.measures[headline]
        gain = row.against_baseline[headline] if row.against_baseline else None
        made.add_row(
            row.system,
            f"{mean.mean:.3f}",
            f"{(mean.high - mean.low) / 2:.3f}",
            "" if gain is None else signed(gain),
            "" if gain is None else probability(gain.p),
            f"{row.ceiling:.3f}",
            f"{row.candidate_recall:.3f}",
            *(f"{row.measures[name].mean:.3f}" for name in others),
        )
    made.caption = (
        f"±: half of the 95% interval; ceiling: {headline} of the candidates in the best order; found: share of the "
        f"relevant that is among them; R: recall"
    )
    return made


def show_average(reports: Sequence[Report]) -> Table:
    """Means over several sets, each counting the same: the headline measure, and its gain relative to the baseline."""
    made = table("system", "mean", "gain", "loses on", right=("mean", "gain"))
    made.title = f"{reports[0].headline} over {len(reports)} sets, against {reports[0].baseline}"
    for name in [row.system for row in reports[0].rows]:
        rows = [[row for row in report.rows if row.system == name] for report in reports]
        if not all(rows):
            continue
        bases = [next(row for row in report.rows if row.system == report.baseline) for report in reports]
        values = [of[0].measures[report.headline].mean for of, report in zip(rows, reports, strict=True)]
        of_base = [base.measures[report.headline].mean for base, report in zip(bases, reports, strict=True)]
        gains = [value / base - 1 for value, base in zip(values, of_base, strict=True) if base]
        lost = [
            report.name
            for of, report in zip(rows, reports, strict=True)
            if of[0].against_baseline and of[0].against_baseline[report.headline].is_loss
        ]
        gain = f"{np.mean(gains):+.1%}" if gains and name != reports[0].baseline else ""
        made.add_row(name, f"{np.mean(values):.3f}", gain, ", ".join(lost))
    return made


def bounds(estimate: Estimate | Difference) -> str:
    """The interval."""
    return f"{estimate.low:.3f}–{estimate.high:.3f}"


def signed(difference: Difference) -> str:
    """A difference and its interval."""
    return f"{difference.mean:+.3f} ({difference.low:+.3f}…{difference.high:+.3f})"


def probability(p: float) -> str:
    """A p-value."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
