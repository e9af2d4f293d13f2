"""Figures of searches under budgets."""

from pathlib import Path

import click
import pytest

from winnow_lab.bench_search import GRACE_SECONDS, Row, Seen, Setting, draw, settings_of, show, summarize


def test_the_settings_are_those_that_the_options_name() -> None:
    assert settings_of("50ms, 1.5s,none", "10,100") == [
        Setting("50ms", budget=0.05),
        Setting("1.5s", budget=1.5),
        Setting("none"),
        Setting("depth 10", fixed_depth=10),
        Setting("depth 100", fixed_depth=100),
    ]
    assert settings_of("none", "") == [Setting("none")]
    for budgets, depths in (("soon", ""), ("none", "deep")):
        with pytest.raises(click.BadParameter):
            settings_of(budgets, depths)


def test_what_failed_is_not_inside_and_counts_as_no_answer_and_what_was_refused_is_told_apart() -> None:
    seen = Seen(
        latencies=[0.05, 0.1 + GRACE_SECONDS, 0.121],
        ndcg=[1.0, 0.5, 1.0, 0.0, 0.0],
        depths=[10, 20, 30],
        deadline_exceeded=1,
        refusals=[0.002, 0.004],
        failed=1,
    )
    row = summarize(Setting("100ms", budget=0.1), seen)
    assert (row.searches, row.inside, row.ndcg_at_10, row.median_depth) == (7, 0.4, 0.5, 20)
    assert (row.deadline_exceeded, row.failed, row.refused, row.refusal_p99_millis) == (1, 1, 2, 4.0)
    assert (row.p50_millis, row.p99_millis) == (120.0, 121.0)
    assert summarize(Setting("none"), seen).inside is None


def test_the_curve_and_the_table_are_drawn_from_the_rows(tmp_path: Path) -> None:
    rows = [
        summarize(setting, Seen(latencies=[0.1], ndcg=[0.5], depths=[3]))
        for setting in (Setting("100ms", budget=0.1), Setting("none"), Setting("depth 10", fixed_depth=10))
    ]
    assert all(isinstance(row, Row) for row in rows)
    draw(rows, tmp_path / "curve.png", title="a set")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert show(rows, title="a set").row_count == 3
