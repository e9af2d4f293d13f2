"""What a variant costs is told against the plain stack of the same run."""

from __future__ import annotations

import io
import os
import time

from rich.console import Console

from winnow_lab.bench_operating.command import show
from winnow_lab.bench_operating.costs import compared, nanoseconds, processor_seconds
from winnow_lab.bench_operating.variants import PLAIN, SERVICES, VARIANTS
from winnow_rpc import tracing


def test_a_stack_is_compared_by_p50_over_all_rounds_and_by_the_range_of_single_ones() -> None:
    plain = [[10.0, 10.0, 90.0], [20.0, 20.0, 20.0], [20.0, 20.0, 20.0]]
    mine = [[11.0, 11.0, 11.0], [20.0, 20.0, 500.0], [22.0, 22.0, 22.0]]
    figures = compared(mine, plain)
    assert figures["searches"] == 9
    assert figures["p50_ratio"] == 1.0
    assert figures["p50_ratio_by_round"] == {"median": 1.1, "low": 1.0, "high": 1.1}


def test_the_plain_stack_is_compared_with_nothing() -> None:
    assert set(compared([[1.0]], None)) == {"searches", "latency"}


def test_what_a_process_computes_adds_up() -> None:
    before = processor_seconds({"me": os.getpid()})
    began = time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert processor_seconds({"me": os.getpid()}) - before >= 0.08
    assert processor_seconds({"gone": 2**30}) == 0.0


def test_costs_of_single_spans_and_counts_are_measured_and_tracing_is_left_off() -> None:
    figures = nanoseconds(repeats=10)
    assert set(figures) == {"span_off", "span_recorded", "call_counted"}
    assert tracing.span("after") is tracing.NO_SPAN


def test_a_report_is_shown_with_the_ratio_of_every_variant() -> None:
    rest = dict.fromkeys(SERVICES, 100.0)
    processor = {"processor_millis_per_search": 3.25}
    common = {"start_seconds": {"index": 1.0}, "memory_mib_at_rest": rest, "memory_mib_under_load": rest}
    report = {
        "spans_per_search": 8.0,
        "nanoseconds": {"span_off": 50.0},
        "variants": {
            PLAIN: {**common, "search": {"retrieve": {**compared([[10.0]], None), **processor}}},
            "telemetry": {**common, "search": {"retrieve": {**compared([[10.4]], [[10.0]]), **processor}}},
        },
    }
    written = io.StringIO()
    show(report, Console(file=written, width=200))
    assert "+4.0%" in written.getvalue()
    assert "3.25" in written.getvalue()
    assert VARIANTS["telemetry"].summary in written.getvalue()
