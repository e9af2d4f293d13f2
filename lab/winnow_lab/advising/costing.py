"""What the recommended way would need, by `winnow plan`'s calculator and what was measured here."""

from __future__ import annotations

from dataclasses import replace

from winnow_client.cli.sizing import Costs, Plan, Workload, plan
from winnow_client.cli.sizing_costs import BUILT_IN
from winnow_lab.advising.measured import Option
from winnow_lab.advising.timing import Work

_PAIR_MARKS = 3
"""Tokens that a cross-encoder puts around and between two texts."""


def costs_of(work: Work) -> Costs:
    """The built-in costs, with those of the models as they were measured in place of theirs."""
    found = {}
    if work.searches:
        found["embed_query_seconds"] = work.embed_micros / 1e6 / work.searches
    if work.rerank_tokens:
        found["rerank_seconds_per_token"] = work.rerank_micros / 1e6 / work.rerank_tokens
    if not found:
        return BUILT_IN
    return replace(BUILT_IN, source=f"measured here for the models; else {BUILT_IN.source}", **found)


def workload_of(work: Work, chosen: Option, *, documents: int, rate: float, budget: float, dimension: int) -> Workload:
    """What is to be served, with texts as long as those that were measured."""
    made = Workload(
        documents=documents,
        dimension=dimension,
        queries_per_second=rate,
        depth=chosen.depth if chosen.reranks else 0,
        budget=budget,
    )
    if work.searches:
        made = replace(made, query_tokens=work.query_tokens / work.searches)
    if work.reranked:
        pair = work.rerank_tokens / work.reranked
        made = replace(made, tokens=max(1.0, pair - made.query_tokens - _PAIR_MARKS))
    return made


def cost(work: Work, chosen: Option, *, documents: int, rate: float, budget: float, dimension: int) -> Plan:
    """Memory, disk and replicas."""
    workload = workload_of(work, chosen, documents=documents, rate=rate, budget=budget, dimension=dimension)
    return plan(workload, costs_of(work))
