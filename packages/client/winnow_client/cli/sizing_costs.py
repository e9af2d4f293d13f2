"""What work costs: as measured for the documentation, or as read from the reports of `winnow bench`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from winnow_client.cli.sizing import Costs
from winnow_rpc.faults import InvalidArgument

BUILT_IN = Costs(
    source="built in: 2 shared cores of an AMD EPYC, the default models by OpenVINO in bfloat16",
    embed_seconds_per_token=1 / (195.6 * 143.4),
    embed_query_seconds=2 / 915,
    rerank_seconds_per_token=1 / (209.6 * 160.0),
    gateway_seconds_per_search=0.0019,
    gateway_seconds_per_candidate=0.00017,
    index_seconds_per_search=0.0014,
    index_seconds_per_candidate=0.00004,
    ingest_embedding_share=0.91,
)
"""From docs/benchmarks.md, and from docs/operations.md what is processor time. Machines differ: measure your own."""


def costs_of(report: Mapping[str, Any], known: Costs, *, name: str) -> Costs:
    """`known`, with what a report of `winnow bench path` or `winnow bench inference` says in its place.

    Raises InvalidArgument if it is neither.
    """
    try:
        if "path" in report:
            found = _of_path(report["path"], cores=report["machine"]["cores"])
        elif "inference" in report:
            found = _of_inference(report["inference"])
        else:
            raise KeyError("path")
        machine = report["machine"]
        where = f"{name}: {machine['cores']} cores of {machine['processor']}"
    except (KeyError, TypeError, ZeroDivisionError, IndexError, StopIteration) as error:
        raise InvalidArgument(
            f"{name} is no report of `winnow bench path --json` or `winnow bench inference --json`",
            field="measured",
            reason="NOT_A_REPORT",
        ) from error
    return replace(known, source=where, **found)


def _of_path(part: Mapping[str, Any], *, cores: int) -> dict[str, Any]:
    ingest, rows = part["ingest"], part["search"]
    tokens = ingest["tokens_per_document"]
    two_stage = max((row for row in rows if row["mode"] == "two-stage"), key=lambda row: row["clients"])
    retrieve = max((row for row in rows if row["mode"] == "retrieve"), key=lambda row: row["clients"])
    pair = tokens + two_stage["query_tokens"] + 3
    return {
        "embed_seconds_per_token": ingest["share_spent_embedding"] / (ingest["documents_per_second"] * tokens),
        "ingest_embedding_share": ingest["share_spent_embedding"],
        # With several clients the reranker never rests, and it is nearly all that the cores do.
        "rerank_seconds_per_token": 1 / (two_stage["searches_per_second"] * two_stage["depth"] * pair),
        **_per_candidate("gateway", retrieve, two_stage),
        **_per_candidate("index", retrieve, two_stage),
        "embed_query_seconds": retrieve["processor_millis"]["embedder"] / 1000 / cores,
    }


def _of_inference(part: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, field in (("embed", "embed_seconds_per_token"), ("rerank", "rerank_seconds_per_token")):
        if stage in part:
            ours = next(row for row in part[stage]["contestants"] if row["name"].startswith("winnow "))
            found[field] = 1 / ours["tokens_per_second"]
    if not found:
        raise KeyError("embed")
    return found


def _per_candidate(service: str, retrieve: Mapping[str, Any], two_stage: Mapping[str, Any]) -> dict[str, float]:
    """Of one core: what a search takes without reranking, and what each candidate adds."""
    alone, together = (row["processor_millis"][service] / 1000 for row in (retrieve, two_stage))
    return {
        f"{service}_seconds_per_search": alone,
        f"{service}_seconds_per_candidate": max(0.0, together - alone) / two_stage["depth"],
    }
