"""What `winnow demo` shows: tables for people, or JSON lines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from winnow_client import Acknowledgement, Document, Hit, IngestOutcome, SearchResult
from winnow_client.cli.output import console, emit, printable
from winnow_client.cli.processes_stack import Stack

_SHOWN = 5
_REFUSALS_SHOWN = 3
# Columns of a terminal that ranks, scores and rules take.
_BESIDE_TITLES = 46


def pace(count: int, seconds: float) -> str:
    """How fast, for a bar or a line."""
    return f"{count / max(seconds, 1e-3):,.0f} documents/s"


class Screen:
    """Where it is shown."""

    def __init__(self, *, machine: bool) -> None:
        self._machine = machine
        self._out = console()
        self._err = console(stderr=True)

    def progress(self, *, rate: bool = False) -> Progress:
        """A progress bar on standard error; where that is no terminal, only its end is written."""
        columns = [TextColumn("  {task.description:28}"), BarColumn(), MofNCompleteColumn()]
        if rate:
            columns += [TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True)]
        return Progress(*columns, console=self._err, disable=self._machine)

    def note(self, sentence: str) -> None:
        """Something that a person may want to know."""
        self._emit({"event": "note", "message": sentence}, f"  {sentence}")

    def started(self, stack: Stack, *, seconds: float, document_count: int, log: Path) -> None:
        """The services serve, and the documents are read."""
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        self._emit(
            {
                "event": "started",
                "seconds": round(seconds, 3),
                "document_count": document_count,
                "addresses": stack.addresses,
                "log": str(log),
            },
            f"  {document_count:,} documents about {version}; four services serving after {seconds:.1f} s (log: {log})",
        )

    def ingested(self, counts: Counter[IngestOutcome], refusals: Sequence[Acknowledgement], *, seconds: float) -> None:
        """Every document has been acknowledged."""
        indexed, unchanged = counts[IngestOutcome.INDEXED], counts[IngestOutcome.UNCHANGED]
        refused = counts[IngestOutcome.REFUSED]
        lines = [
            f"  indexed {indexed:,}, unchanged {unchanged:,}, refused {refused:,} "
            f"in {seconds:.1f} s ({pace(counts.total(), seconds)})"
        ]
        shown = [(each.id, each.refusal.message) for each in refusals if each.refusal]
        lines += [f"  refused {name}: {why}" for name, why in shown[:_REFUSALS_SHOWN]]
        self._emit(
            {
                "event": "ingested",
                "indexed": indexed,
                "unchanged": unchanged,
                "refused": refused,
                "seconds": round(seconds, 3),
                "refusals": [{"id": name, "message": why} for name, why in shown],
            },
            "\n".join(lines),
        )

    def searched(self, query: str, result: SearchResult) -> None:
        """A search was answered."""
        if self._machine:
            self._emit({"event": "searched", **_search_facts(query, result)}, "")
            return
        self._out.print()
        self._out.print(Text(f"  {query}", style="bold"))
        self._out.print(both_stages(result, width=self._out.width))
        self._out.print(Text(f"  {_times(result)}", style="dim"))
        for degradation in result.degradations:
            self._out.print(Text(f"  degraded: {degradation.message}", style="yellow"))

    def kept(self, address: str, collection: str) -> None:
        """The services go on running."""
        self._emit(
            {"event": "kept", "address": address, "collection": collection},
            f"\n  running until Ctrl-C; in another terminal:\n"
            f'    winnow search --gateway {address} {collection} "what are you looking for?"',
        )

    def stopped(self) -> None:
        """All services have ended."""
        self._emit({"event": "stopped"}, "\n  all services have stopped; a second run embeds nothing twice")

    def _emit(self, facts: dict[str, object], text: str) -> None:
        if self._machine:
            emit(facts)
        else:
            self._out.print(Text(text))


def both_stages(result: SearchResult, *, width: int) -> Table:
    """The best of retrieval on the left, the best after reranking on the right, in `width` columns of a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    title_width = max(16, min(46, (width - _BESIDE_TITLES) // 2))
    table.add_column("", justify="right", no_wrap=True, min_width=1, style="dim")
    table.add_column("retrieval", no_wrap=True, overflow="ellipsis", width=title_width)
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("", no_wrap=True, min_width=1, style="dim")
    mixed = "ranks" if result.mixing else "scores" if result.score_mixing else ""
    ordered = f"reranking, {mixed} mixed" if mixed else "reranking"
    table.add_column(ordered, no_wrap=True, overflow="ellipsis", width=title_width)
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("rank", justify="right", no_wrap=True, min_width=4)
    table.add_column("was", justify="right", no_wrap=True, min_width=3)
    retrieved = sorted(result.hits, key=lambda hit: hit.retrieval.rank if hit.retrieval else len(result.hits))
    pairs = list(zip(retrieved, result.hits, strict=True))
    for rank, (left, right) in enumerate(pairs[:_SHOWN], start=1):
        table.add_row(
            str(rank),
            _title(left),
            f"{left.retrieval.score:.3f}" if left.retrieval else "",
            "│\n│",
            _title(right),
            f"{right.rerank.score:.3f}" if right.rerank else "",
            str(right.rerank.rank) if right.rerank else "",
            _movement(right),
        )
    return table


def _title(hit: Hit) -> Text:
    return Text.assemble((printable(hit.document.title), "bold"), "\n", (printable(_summary(hit.document)), "dim"))


def _summary(document: Document) -> str:
    """The first paragraph that is not merely how to call it."""
    paragraphs = document.text.split("\n\n")
    calls = (f"{document.title}(", f"{document.title.rpartition('.')[2]}(")
    told = (paragraph for paragraph in paragraphs if not paragraph.startswith(calls))
    return " ".join(next(told, paragraphs[0]).split())


def _movement(hit: Hit) -> Text:
    """The rank that retrieval gave, coloured by where reranking took it."""
    if not hit.retrieval:
        return Text("")
    style = "green" if hit.retrieval.rank > hit.rank else "red" if hit.retrieval.rank < hit.rank else "dim"
    return Text(str(hit.retrieval.rank), style=style)


def _times(result: SearchResult) -> str:
    timing = result.timing
    stages = {
        "embed": timing.embed_micros,
        f"retrieve ({result.candidate_count})": timing.retrieve_micros,
        f"rerank ({result.reranked_count})": timing.rerank_micros,
        "rest": timing.gateway_micros,
        "total": timing.total_micros,
    }
    return "milliseconds: " + " · ".join(f"{name} {micros / 1000:.1f}" for name, micros in stages.items())


def _search_facts(query: str, result: SearchResult) -> dict[str, object]:
    timing = result.timing
    return {
        "query": query,
        "mode": result.mode,
        "candidates": result.candidate_count,
        "reranked": result.reranked_count,
        "millis": {
            "embed": timing.embed_micros / 1000,
            "retrieve": timing.retrieve_micros / 1000,
            "rerank": timing.rerank_micros / 1000,
            "gateway": timing.gateway_micros / 1000,
            "total": timing.total_micros / 1000,
        },
        "hits": [
            {
                "rank": hit.rank,
                "id": hit.document.id,
                "title": hit.document.title,
                "link": hit.document.metadata.get("link"),
                "retrieval": hit.retrieval,
                "rerank": hit.rerank,
            }
            for hit in result.hits[:_SHOWN]
        ],
        "degradations": [degradation.message for degradation in result.degradations],
    }
