"""The plan's arithmetic: what grows with what, whatever the numbers; and what some numbers come to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow_client.cli.sizing import IndexSize, Plan, Workload, index_size, mean_wait, plan
from winnow_client.cli.sizing_costs import BUILT_IN, costs_of
from winnow_rpc.faults import InvalidArgument

workloads = st.builds(
    Workload,
    documents=st.integers(1, 10**9),
    tokens=st.floats(1, 10_000),
    dimension=st.integers(1, 8192),
    lexical=st.booleans(),
    queries_per_second=st.floats(0, 10_000),
    query_tokens=st.floats(1, 500),
    depth=st.integers(0, 1000),
    budget=st.none() | st.floats(0.001, 100),
    daily_documents=st.floats(0, 10**8),
    copies=st.integers(1, 5),
)
utilisations = st.floats(0.01, 0.95)


def no_less(more: IndexSize, less: IndexSize) -> bool:
    sizes = [name for name in IndexSize.__dataclass_fields__ if name != "parts"]
    return all(getattr(more, name) >= getattr(less, name) for name in sizes)


def replicas(made: Plan) -> dict[str, int]:
    return {stage.service: stage.replicas for stage in made.stages}


@given(workloads, st.integers(0, 10**9), st.floats(0, 5000), st.integers(0, 4096))
def test_more_longer_or_wider_documents_never_need_less(
    workload: Workload, more: int, tokens: float, wide: int
) -> None:
    size = index_size(workload)
    assert no_less(index_size(replace(workload, documents=workload.documents + more)), size)
    assert no_less(index_size(replace(workload, tokens=workload.tokens + tokens)), size)
    assert no_less(index_size(replace(workload, dimension=workload.dimension + wide)), size)
    assert no_less(index_size(replace(workload, lexical=True)), size)
    assert no_less(size, index_size(replace(workload, lexical=False)))


@given(workloads, utilisations, st.integers(0, 3))
def test_a_size_is_the_sum_of_its_parts_and_more_is_needed_while_building(
    workload: Workload, utilisation: float, spare: int
) -> None:
    size = plan(workload, BUILT_IN, utilisation=utilisation, spare=spare).index
    assert size.disk == sum(size.parts.values()) < size.disk_while_building
    assert size.memory < size.memory_while_building
    assert size.parts["vectors"] == 4 * workload.documents * workload.dimension


@given(workloads, utilisations, st.floats(1, 100))
def test_more_queries_never_need_fewer_replicas(workload: Workload, utilisation: float, factor: float) -> None:
    busier = replace(workload, queries_per_second=workload.queries_per_second * factor)
    before = replicas(plan(workload, BUILT_IN, utilisation=utilisation))
    after = replicas(plan(busier, BUILT_IN, utilisation=utilisation))
    assert all(after[service] >= before[service] for service in before)


@given(workloads, utilisations)
def test_no_replica_is_busier_than_the_utilisation_even_when_the_spare_ones_are_away(
    workload: Workload, utilisation: float
) -> None:
    for stage in plan(workload, BUILT_IN, utilisation=utilisation, spare=2).stages:
        assert stage.load <= stage.needed * utilisation * (1 + 1e-6)
        assert 0 <= stage.utilisation <= utilisation * (1 + 1e-6)
        if stage.needed > max(1, workload.copies):
            assert stage.load > (stage.needed - 1) * utilisation * (1 - 1e-6), "one less would not do"


@given(workloads, utilisations, st.floats(0, 10))
def test_a_longer_budget_never_reranks_less_and_none_more_than_was_asked(
    workload: Workload, utilisation: float, longer: float
) -> None:
    short = replace(workload, budget=workload.budget or 1.0)
    assert workload.budget is not None or plan(workload, BUILT_IN).depth == workload.depth
    depths = [
        plan(each, BUILT_IN, utilisation=utilisation).depth
        for each in (short, replace(short, budget=(short.budget or 0) + longer), replace(short, budget=None))
    ]
    assert 0 <= depths[0] <= depths[1] <= depths[2] == workload.depth


@given(workloads, utilisations)
def test_a_planned_search_is_done_within_its_budget(workload: Workload, utilisation: float) -> None:
    made = plan(replace(workload, budget=workload.budget or 0.5), BUILT_IN, utilisation=utilisation, spare=0)
    if made.depth:
        busy = [stage for stage in made.stages if stage.service != "gateway"]
        assert sum(stage.seconds_per_search + stage.mean_wait for stage in busy) <= made.workload.budget * (1 + 1e-6)  # type: ignore[operator]


@given(workloads)
def test_cheaper_work_never_needs_more(workload: Workload) -> None:
    dear = replace(BUILT_IN, rerank_seconds_per_token=2 * BUILT_IN.rerank_seconds_per_token)
    # The depth under a budget follows the costs, so only without one are replicas comparable.
    unhurried = replace(workload, budget=None)
    assert replicas(plan(unhurried, BUILT_IN))["reranker"] <= replicas(plan(unhurried, dear))["reranker"]
    assert plan(workload, dear).depth <= plan(workload, BUILT_IN).depth


def test_without_reranking_there_is_no_reranker() -> None:
    assert replicas(plan(Workload(documents=1000, depth=0), BUILT_IN))["reranker"] == 0


def test_waiting_follows_pollaczek_and_khinchine() -> None:
    assert mean_wait(0.0, 2.0) == 0
    assert mean_wait(0.5, 2.0) == pytest.approx(1.0)
    assert mean_wait(0.6, 1.0) == pytest.approx(0.75)
    assert mean_wait(0.9, 1.0) == pytest.approx(4.5)
    assert mean_wait(1.0, 1.0) == float("inf")


def test_ten_searches_a_second_over_a_hundred_passages_come_to_what_the_benchmark_says() -> None:
    made = plan(Workload(documents=100_000, tokens=143, query_tokens=9.6, queries_per_second=10), BUILT_IN)
    # 209.6 pairs of 160 tokens are 2.16 searches of such pairs a second; at 60% of them, 8 replicas do ten.
    assert replicas(made) == {"gateway": 2, "embedder": 2, "reranker": 8 + 1, "index": 1}


def test_what_is_impossible_or_unwise_is_said() -> None:
    hurried = plan(Workload(documents=10, budget=0.1, tokens=400), BUILT_IN)
    assert any("budget allows" in warning for warning in hurried.warnings)
    assert any("beginning" in warning for warning in hurried.warnings)
    busy = plan(Workload(documents=10, queries_per_second=1000), BUILT_IN)
    assert any("embedded index is one process" in warning for warning in busy.warnings)


def path_report() -> dict[str, object]:
    spent = {"gateway": 2.0, "embedder": 4.0, "index": 1.0, "reranker": 0.0}
    row = {"clients": 8, "query_tokens": 15.0, "depth": 0, "searches_per_second": 200.0, "processor_millis": spent}
    deep = {**row, "mode": "two-stage", "depth": 100, "searches_per_second": 2.0}
    deep["processor_millis"] = {**spent, "gateway": 52.0, "index": 5.0}
    ingest = {"tokens_per_document": 70.0, "documents_per_second": 100.0, "share_spent_embedding": 0.7}
    part = {"ingest": ingest, "search": [{**row, "mode": "retrieve"}, {**deep, "clients": 1}, deep]}
    return {"machine": {"cores": 2, "processor": "a processor"}, "path": part}


def test_costs_are_read_from_a_report_of_the_whole_path() -> None:
    costs = costs_of(path_report(), BUILT_IN, name="path.json")
    assert costs.source == "path.json: 2 cores of a processor"
    assert costs.embed_seconds_per_token == pytest.approx(0.7 / (100 * 70))
    assert costs.embed_query_seconds == pytest.approx(0.002)
    assert costs.rerank_seconds_per_token == pytest.approx(1 / (2 * 100 * (70 + 15 + 3)))
    assert costs.gateway_seconds_per_search == pytest.approx(0.002)
    assert costs.gateway_seconds_per_candidate == pytest.approx(0.0005)
    assert costs.index_seconds_per_candidate == pytest.approx(0.00004)


def test_a_report_of_the_engine_replaces_what_it_measured_and_leaves_the_rest() -> None:
    ours = {"name": "winnow auto", "tokens_per_second": 10_000}
    part = {"embed": {"contestants": [{"name": "engine alone, auto", "tokens_per_second": 1}, ours]}}
    report = {"machine": {"cores": 2, "processor": "a processor"}, "inference": part}
    costs = costs_of(report, BUILT_IN, name="engine.json")
    assert costs == replace(BUILT_IN, source=costs.source, embed_seconds_per_token=1e-4)


@pytest.mark.parametrize(
    "report", [{}, {"path": {}}, {"path": None}, {"inference": {}}, {"inference": [], "machine": 3}]
)
def test_anything_else_is_refused_by_its_name(report: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=r"odd\.json is no report"):
        costs_of(report, BUILT_IN, name="odd.json")
