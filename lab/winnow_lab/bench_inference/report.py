"""The report of `winnow bench inference` for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from winnow_client.cli.output import table

_PROFILE = {
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "engine alone": ("engine_tokens_per_second", "{:,.0f}"),
    "kept": ("share_of_engine", "{:.1%}"),
    "padding": ("padding_share", "{:.1%}"),
    "batch": ("batch_size_median", "{:.0f}"),
    "least": ("batch_size_low", "{:.0f}"),
    "most": ("batch_size_high", "{:.0f}"),
    "queue": ("queue_ms", "{:.1f}"),
    "tokenize": ("tokenize_ms", "{:.2f}"),
    "inference": ("inference_ms", "{:.1f}"),
    "serialize": ("serialization_ms", "{:.3f}"),
}


def show(report: dict[str, Any], console: Console) -> None:
    """Prints every part that was measured."""
    texts = report["texts"]
    console.print(
        f"texts: {texts['source']}; {texts['passages']} passages of {texts['passage_tokens_mean']} tokens on average, "
        f"{texts['queries']} queries of {texts['query_tokens_mean']}"
    )
    console.print(report["peers"])
    if "embed" in report:
        _show_embedding(report["embed"], console)
    if "rerank" in report:
        _show_reranking(report["rerank"], console)
    for part, show_part in (("query", _show_query), ("mixed", _show_mixed), ("overload", _show_overload)):
        if part in report:
            show_part(report[part], console)
    for row in report.get("soak", []):
        _show_soak(row, console)


def _show_embedding(part: dict[str, Any], console: Console) -> None:
    console.print(f"\nembed: {part['texts']} texts, {part['tokens']:,} tokens, {part['rounds']} rounds, by the median")
    columns = ("embed", "texts/s", "tokens/s", "cosine")
    _show_contestants(part, columns, console, each=lambda row: f"{row['tokens_per_second']:,}", form="{:.5f}")
    _show_profile(part["profile"], "a batch of the stream", console)


def _show_reranking(part: dict[str, Any], console: Console) -> None:
    console.print(
        f"\nrerank: {part['queries']} queries, {part['pairs']} pairs, {part['tokens']:,} tokens, {part['rounds']} "
        f"rounds, by the median; `sorted` was given the pairs by length"
    )
    columns = ("rerank", "pairs/s", "s/query", "Spearman")
    _show_contestants(part, columns, console, each=lambda row: f"{row['seconds_per_query']:.3f}", form="{:.4f}")
    _show_profile(part["profile"], "a request", console)


def _show_contestants(
    part: dict[str, Any],
    columns: tuple[str, str, str, str],
    console: Console,
    *,
    each: Callable[[dict[str, Any]], str],
    form: str,
) -> None:
    """A row a contestant: speed with the range of the rounds, ratio, and how like the reference its results are."""
    title, speed, other, likeness = columns
    numbers = (speed, "low", "high", other, "ratio", likeness, "lowest")
    rows = table(title, "precision", *numbers, right=numbers)
    for row in part["contestants"]:
        rows.add_row(
            row["name"],
            row["precision"],
            *(f"{row[key]:.1f}" for key in ("per_second", "per_second_low", "per_second_high")),
            each(row),
            _or_dash(row["ratio"], "{:.2f}"),
            *(_or_dash(row[f"{likeness.lower()}_{which}"], form) for which in ("mean", "min")),
        )
    console.print(rows)
    _show_versions(part["contestants"], console)
    _show_failed(part["failed"], console)


def _show_profile(profiles: Mapping[str, dict[str, Any]], unit: str, console: Console) -> None:
    if not profiles:
        return
    rows = table("service", *_PROFILE, right=tuple(_PROFILE))
    for name, profile in profiles.items():
        rows.add_row(name, *(form.format(profile[key]) for key, form in _PROFILE.values()))
    console.print(
        "where it goes. Kept: of what the engine alone does; padding and batches (sequences: median, least, most): of "
        f"the engine alone; queue to serialize: milliseconds of {unit}, by the median"
    )
    console.print(rows)


def _show_query(part: list[dict[str, Any]], console: Console) -> None:
    numbers = ("p50", "p95", "p99", "engine alone p50", "difference")
    rows = table("query", "precision", *numbers, right=numbers)
    for row in _measured(part, console, "query"):
        latency = row["through_grpc"]
        values = (latency["p50"], latency["p95"], latency["p99"], row["in_process"]["p50"], row["difference_p50"])
        rows.add_row(row["dtype"], row["precision"], *(f"{value:.2f}" for value in values))
    console.print("\nquery: one client, one query at a time, milliseconds")
    console.print(rows)


def _show_mixed(part: list[dict[str, Any]], console: Console) -> None:
    numbers = ("idle p50", "idle p99", "p50", "p99", "p99 to idle p50", "bulk/s", "bulk/s alone", "bulk kept")
    rows = table("mixed", "precision", *numbers, right=numbers)
    for row in _measured(part, console, "mixed"):
        rows.add_row(
            row["dtype"],
            row["precision"],
            *(_latency(row[which], cut) for which in ("query_idle", "query_under_bulk") for cut in ("p50", "p99")),
            _or_dash(row["p99_under_bulk_to_p50_idle"], "{:.1f}"),
            f"{row['bulk_beside_per_second']:.1f}",
            f"{row['bulk_alone_per_second']:.1f}",
            _or_dash(row["bulk_kept"], "{:.1%}"),
        )
    console.print("\nmixed: paced queries beside a bulk stream that never ends, milliseconds")
    console.print(rows)


def _show_overload(part: list[dict[str, Any]], console: Console) -> None:
    numbers = (
        "capacity/s",
        "its p50",
        "its p99",
        "offered/s",
        "accepted",
        "p50",
        "p99",
        "refused",
        "p50",
        "p99",
        "errors",
    )
    rows = table("overload", "precision", *numbers, right=numbers)
    notes = []
    for row in _measured(part, console, "overload"):
        rows.add_row(
            row["dtype"],
            row["precision"],
            f"{row['capacity_per_second']:.1f}",
            *(_latency(row["at_capacity"], cut) for cut in ("p50", "p99")),
            f"{row['sent_per_second']:.1f}",
            str(row["accepted"]),
            *(_latency(row["accepted_latency"], cut) for cut in ("p50", "p99")),
            str(row["refused"]),
            *(_latency(row["refusal_latency"], cut) for cut in ("p50", "p99")),
            str(row["errors"]),
        )
        lag = row["lag"]
        verdict = "the load generator lagged" if lag["lagged"] else "the load generator kept its pace"
        notes.append(
            f"{row['dtype']}: {verdict} (calls began {lag['p99_ms']:.1f} ms late at p99); {row['texts_per_call']} "
            f"passages a call; calls that would wait over {row['max_wait_seconds']:g} s are refused"
            + "".join(f"; {count} errors: {kind}" for kind, count in row["error_kinds"].items())
        )
    console.print("\noverload: twice the capacity as an open loop, milliseconds")
    console.print(rows)
    for note in notes:
        console.print(note)


def _show_soak(row: dict[str, Any], console: Console) -> None:
    if "failed" in row:
        console.print(f"\nsoak {row['dtype']}: {row['failed']}")
        return
    checked = ", ".join(f"{count} of kind {kind}" for kind, count in row["checked"].items())
    console.print(
        f"\nsoak {row['dtype']}, {row['seconds']:g} s: {row['wrong_total']} wrong of {checked}; {row['errors']} "
        f"errors; worst cosine {row['worst_cosine']:.6f}, worst difference of a score "
        f"{row['worst_score_difference']:.5f}"
    )
    for service, memory in row["memory"].items():
        if memory is None:
            console.print(f"memory of the {service}: not known here")
        else:
            console.print(
                f"memory of the {service}: {memory['from_mib']} MiB after warming up, {memory['to_mib']} at the "
                f"end ({memory['growth_mib']:+} MiB, {memory['mib_per_minute']:+} a minute)"
            )


def _measured(part: list[dict[str, Any]], console: Console, name: str) -> list[dict[str, Any]]:
    """The rows that were measured; of the others it says why not."""
    for row in part:
        if "failed" in row:
            console.print(f"\n{name} {row['dtype']}: {row['failed']}")
    return [row for row in part if "failed" not in row]


def _show_versions(rows: list[dict[str, Any]], console: Console) -> None:
    said = dict.fromkeys(f"{row['name'].split()[0]} {row['version']}" for row in rows if row["version"])
    if said:
        console.print("versions: " + "; ".join(said))


def _show_failed(failed: Mapping[str, str], console: Console) -> None:
    for name, reason in failed.items():
        console.print(f"{name}: not measured, {reason}")


def _latency(cuts: Mapping[str, float], name: str) -> str:
    return f"{cuts[name]:.1f}" if name in cuts else "–"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
