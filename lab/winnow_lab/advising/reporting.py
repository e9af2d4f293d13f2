"""What was found, as a page to show a colleague, and on the screen."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rich.table import Table

from winnow_client.cli.output import table
from winnow_client.cli.sizing import Plan
from winnow_lab.advising.drawing import marked
from winnow_lab.advising.measured import Kind, Option, Situation, pareto
from winnow_lab.advising.recommending import Advice, Sureness

COLUMNS = ("p50", "p95", "±", "ceiling", "found")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: .2rem .7rem; text-align: right; }
th { border-bottom: 1px solid #888; } td:nth-child(2), th:nth-child(2) { text-align: left; }
tr.chosen { background: #fdeaea; font-weight: 600; } tr.slow { color: #888; }
code { background: #f3f3f3; padding: .1rem .3rem; } img { max-width: 100%; } .head { font-size: 1.3rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a report tells."""

    name: str
    """Of the set."""
    advice: Advice
    options: Sequence[Option]
    situation: Situation
    plan: Plan
    made: Mapping[str, str]
    """How it was measured: what answered, and on what machine."""
    notes: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Of the report."""
        return f"How to search {self.name}"


def settings_of(option: Option) -> dict[str, str | int]:
    """The options of `winnow search`, and of a search by the SDK, that make it search so."""
    chosen: dict[str, str | int] = {"mode": option.kind.value}
    if option.kind in (Kind.RETRIEVE, Kind.TWO_STAGE):
        chosen["retrieval"] = option.stage
    if option.kind is Kind.TWO_STAGE:
        chosen |= {"depth": option.depth}
    if option.reranks:
        chosen["ranking"] = "mixed" if option.mixed else "reranker"
    return chosen


def command_of(option: Option) -> str:
    """A search by it, on the command line."""
    return " ".join(
        ["winnow search COLLECTION 'QUERY'", *(f"--{name} {value}" for name, value in settings_of(option).items())]
    )


def sure(sureness: Sureness, measure: str) -> list[str]:
    """How sure the recommendation is, in sentences."""
    found = sureness.difference
    verdict = (
        "better, and not by chance"
        if found.is_gain
        else "worse, and not by chance"
        if found.is_loss
        else "not told from it by these queries"
    )
    said = [
        f"by {sureness.queries:,} queries; compared with {sureness.compared_with}: {found.mean:+.3f} {measure} "
        f"({found.low:+.3f} to {found.high:+.3f}, p {found.p:.3f}), {verdict}"
    ]
    missing = {shown: count for shown, count in sureness.needed.items() if count > sureness.queries}
    if missing:
        needs = ", ".join(f"{shown:g} needs {count - sureness.queries:,} more" for shown, count in missing.items())
        said.append(
            f"so many queries show a true difference of {sureness.detectable:.3f} four times of five; one of {needs}"
        )
    return said


def costs(plan: Plan) -> list[str]:
    """What it needs, in sentences."""
    workload = plan.workload
    replicas = ", ".join(f"{stage.service} {stage.replicas}" for stage in plan.stages if stage.replicas)
    return [
        f"{workload.documents:,} documents and {workload.queries_per_second:g} searches/s: {replicas} replicas (one of "
        f"each to spare but of the index), {plan.index.memory / 2**30:,.1f} GiB of memory and "
        f"{plan.index.disk / 2**30:,.1f} GiB of disk for the index",
        *plan.warnings,
    ]


def show(findings: Findings) -> Table:
    """Every option, by rising latency."""
    measure, front = findings.situation.measure, pareto(findings.options)
    made = table("", "option", "", measure, *COLUMNS, right=(measure, *COLUMNS))
    for mark, option in marked(findings.options):
        flags = ("*" if option in front else " ") + ("<" if option.name == findings.advice.chosen.name else "")
        made.add_row(mark, option.name, flags, *_figures(option))
    made.caption = "*: nothing better is quicker; <: recommended; p50, p95 in milliseconds; ±: half of the 95% interval"
    return made


def page(findings: Findings, picture: bytes) -> str:
    """A page of HTML that needs nothing else."""
    advice, situation = findings.advice, findings.situation
    front = pareto(findings.options)
    rows = []
    for mark, option in marked(findings.options):
        slow = option.latency.p95 > situation.budget
        kind = "chosen" if option.name == advice.chosen.name else "slow" if slow else ""
        cells = [mark, option.name, "✓" if option in front else "", *_figures(option)]
        rows.append(f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>')
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("", "option", "front", situation.measure, *COLUMNS))
    image = base64.b64encode(picture).decode()
    parts = [
        f"<h1>{escape(findings.title)}</h1>",
        f'<p class="head">Recommended: <strong>{escape(advice.chosen.name)}</strong></p>',
        f"<p>{escape(_sentence(advice.reason))}</p>",
        f"<p><code>{escape(command_of(advice.chosen))}</code></p>",
        _list("Mind", advice.warnings),
        f'<img alt="quality against latency" src="data:image/png;base64,{image}">',
        f"<table><tr>{heads}</tr>{''.join(rows)}</table>",
        "<p>By rising latency, in milliseconds, of one caller on an otherwise idle machine; grey: over the budget. "
        "±: half of the 95% interval. Ceiling: of the best order of the same candidates. Found: share of the relevant "
        "documents among them.</p>",
        _list("How sure", sure(advice.sureness, situation.measure)),
        _list("What else holds", advice.rules),
        _list("What it would need", [*costs(findings.plan), f"costs: {findings.plan.costs.source}"]),
        _list("How it was measured", [*(f"{name}: {value}" for name, value in findings.made.items()), *findings.notes]),
    ]
    head = f'<meta charset="utf-8"><title>{escape(findings.title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _figures(option: Option) -> list[str]:
    quality, latency = option.quality, option.latency
    return [
        f"{quality.mean:.3f}",
        f"{latency.p50 * 1000:,.1f}",
        f"{latency.p95 * 1000:,.1f}",
        f"{(quality.high - quality.low) / 2:.3f}",
        f"{option.ceiling:.3f}",
        f"{option.found:.3f}",
    ]


def _list(head: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(_sentence(each))}</li>" for each in sentences)
    return f"<h2>{escape(head)}</h2><ul>{items}</ul>" if items else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
