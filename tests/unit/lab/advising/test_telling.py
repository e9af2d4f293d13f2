"""The front, the table, the page, and what it would need: made of what was measured and nothing else."""

from __future__ import annotations

import base64
import re

import pytest

from tests.unit.lab.advising.made_up import an_option, reranked, retrieval
from winnow_client.cli.output import console
from winnow_client.cli.sizing_costs import BUILT_IN
from winnow_lab.advising.costing import cost, costs_of, workload_of
from winnow_lab.advising.drawing import picture, scatter
from winnow_lab.advising.measured import Kind, Latency, Situation
from winnow_lab.advising.recommending import advise
from winnow_lab.advising.reporting import Findings, command_of, page, settings_of, show, sure
from winnow_lab.advising.timing import Work, latency

WORK = Work(searches=100, query_tokens=1_500, embed_micros=400_000, reranked=2_000, rerank_tokens=236_000)
WORK.rerank_micros = 4_720_000


def findings() -> Findings:
    options = [*retrieval(), *reranked({10: 0.70, 20: 0.748, 100: 0.751})]
    situation = Situation(budget=0.2, measured_size=5_000, corpus_size=1_000_000)
    advice = advise(options, situation)
    plan = cost(WORK, advice.chosen, documents=1_000_000, rate=5.0, budget=0.2, dimension=384)
    return Findings(
        name="<mine>",
        advice=advice,
        options=options,
        situation=situation,
        plan=plan,
        made={"how": "through <a> gateway"},
        notes=["3 documents left out"],
    )


def test_the_front_in_characters_has_every_option_at_its_place() -> None:
    options = [*retrieval(), *reranked({20: 0.75})]
    lines = scatter(options, budget=0.05, width=40, height=10)
    assert len(lines) == 12
    rows = {mark: at for at, line in enumerate(lines) for mark in "abcd" if mark in line.partition("│")[2]}
    assert rows["d"] == 0, "the best is on top"
    assert rows["a"] == 9, "and the worst at the bottom"
    columns = {mark: lines[at].index(mark) for mark, at in rows.items()}
    assert columns["a"] < columns["b"] < columns["c"] < columns["d"]
    assert all("·" in line for line in lines[:10]), "the budget"
    assert lines[0].startswith(" 0.750")


def test_one_option_alone_can_be_drawn() -> None:
    only = an_option("dense", quality=0.5, millis=10, kind=Kind.RETRIEVE, stage="dense")
    assert any("a" in line for line in scatter([only], budget=0.010))
    drawn = picture([only], chosen=only, budget=0.01, measure="nDCG@10", title="one")
    assert drawn.startswith(b"\x89PNG")


def test_the_page_needs_nothing_else_and_names_what_is_recommended() -> None:
    told = findings()
    drawn = picture(told.options, chosen=told.advice.chosen, budget=0.2, measure="nDCG@10", title=told.title)
    html = page(told, drawn)
    assert "Recommended: <strong>hybrid, rerank 20</strong>" in html
    assert "--mode two-stage --retrieval hybrid --depth 20 --ranking reranker" in html
    inlined = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert inlined is not None
    assert base64.b64decode(inlined[1]) == drawn
    assert "http" not in html
    assert "<mine>" not in html, "names are escaped"
    assert "through &lt;a&gt; gateway" in html
    assert "3 documents left out" in html
    assert html.count("<tr") == 1 + len(told.options)


def test_the_table_has_a_row_for_each_option() -> None:
    told = findings()
    table = show(told)
    assert table.row_count == len(told.options)
    screen = console()
    with screen.capture() as captured:
        screen.print(table)
    assert re.search(r"hybrid, rerank 20 +\*?<", captured.get())


@pytest.mark.parametrize(
    ("kind", "stage", "depth", "mixed", "settings"),
    [
        (Kind.RETRIEVE, "dense", 0, False, {"mode": "retrieve", "retrieval": "dense"}),
        (Kind.LEXICAL, "BM25", 0, False, {"mode": "lexical"}),
        (
            Kind.TWO_STAGE,
            "hybrid",
            50,
            True,
            {"mode": "two-stage", "retrieval": "hybrid", "depth": 50, "ranking": "mixed"},
        ),
        (Kind.EXHAUSTIVE, "", 900, False, {"mode": "exhaustive", "ranking": "reranker"}),
    ],
)
def test_what_to_set_is_what_the_command_understands(
    kind: Kind, stage: str, depth: int, mixed: bool, settings: dict[str, object]
) -> None:
    from winnow_client.cli.search import search

    option = an_option("x", quality=0.5, millis=1, kind=kind, stage=stage, depth=depth, mixed=mixed)
    assert settings_of(option) == settings
    parsed = search.make_context("search", command_of(option).replace("'", "").split()[2:], resilient_parsing=True)
    assert {name: parsed.params[name] for name in settings} == settings


def test_how_sure_it_is_counts_the_queries_that_are_missing() -> None:
    told = findings().advice
    said = " ".join(sure(told.sureness, "nDCG@10"))
    assert "by 60 queries; compared with hybrid" in said
    assert "better, and not by chance" in said
    assert f"0.01 needs {told.sureness.needed[0.01] - 60:,} more" in said


def test_the_plan_is_made_of_what_the_models_took_here() -> None:
    costs = costs_of(WORK)
    assert costs.embed_query_seconds == pytest.approx(0.004)
    assert costs.rerank_seconds_per_token == pytest.approx(2e-5)
    assert costs.index_seconds_per_search == BUILT_IN.index_seconds_per_search
    chosen = findings().advice.chosen
    workload = workload_of(WORK, chosen, documents=9, rate=5.0, budget=1.0, dimension=384)
    # 118 tokens a pair: 15 of the query, 3 marks.
    assert (workload.query_tokens, workload.tokens, workload.depth) == (15, 100, 20)
    assert costs_of(Work()) == BUILT_IN
    plan = findings().plan
    assert plan.stages[2].seconds_per_search == pytest.approx(20 * 118 * 2e-5)


def test_percentiles_are_values_that_were_measured() -> None:
    assert latency([0.1 * each for each in range(1, 21)]) == Latency(p50=1.0, p95=pytest.approx(1.9))


def test_one_query_is_not_said_to_show_every_difference() -> None:
    options = [*retrieval(queries=1), *reranked({10: 0.70}, queries=1)]
    advice = advise(options, Situation(budget=0.2, measured_size=5_000, corpus_size=5_000))
    (said,) = sure(advice.sureness, "nDCG@10")
    assert said.startswith("by 1 queries")
    assert "not told from it" in said
