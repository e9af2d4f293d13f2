"""`winnow bench inference`: says what is to be measured, and measures part after part."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.progress import Progress

from winnow_inference.models.locating import default_bi_encoder, locate
from winnow_lab import bench_report
from winnow_lab.bench_inference.embedding import measure_embedding
from winnow_lab.bench_inference.loads import measure_each, measure_mixed, measure_overload, measure_query
from winnow_lab.bench_inference.plan import LONG_PARTS, PARTS, Models, Plan
from winnow_lab.bench_inference.reading import read_texts
from winnow_lab.bench_inference.report import show
from winnow_lab.bench_inference.reranking import measure_reranking
from winnow_lab.bench_inference.soak import measure_soak
from winnow_reranker.assembly import default_model

_POSITIVE = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=1)
_EPILOG = (
    "\b\nExamples:\n  winnow bench inference --only embed --only rerank --texts 256\n"
    "  winnow bench inference --data path/to/squad --dtype auto --only query --json\n"
    "  winnow bench inference --only soak --soak-seconds 600"
)


@click.command(epilog=_EPILOG)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="Texts: a folder in the BEIR layout, or its corpus.jsonl. Else the documentation of Python's library.",
)
@click.option("--texts", "passages", type=_POSITIVE, default=512, show_default=True, help="Passages of 100-200 tokens.")
@click.option(
    "--rerank-depth", type=_POSITIVE, default=100, show_default=True, help="Passages to rerank for each query."
)
@click.option(
    "--rerank-queries", type=_POSITIVE, default=4, show_default=True, help="Queries of one round of reranking."
)
@click.option("--queries", type=_POSITIVE, default=300, show_default=True, help="Single queries for latency.")
@click.option(
    "--rounds",
    type=_POSITIVE,
    default=3,
    show_default=True,
    help="Turns of each contestant, and of each kind of mixed load.",
)
@click.option(
    "--peers",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".winnow/peers"),
    show_default=True,
    help="Folder of the engines to compare with, made by `make peers`.",
)
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    default=("auto", "int8"),
    show_default=True,
    help="Number format of our services; may be repeated.",
)
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure this part alone; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Measure every part, the soak too.")
@click.option("--soak-seconds", type=_SECONDS, default=600.0, show_default=True, help="Length of the soak, per format.")
@click.option(
    "--mixed-seconds", type=_SECONDS, default=30.0, show_default=True, help="Length of each kind of mixed load, in all."
)
@click.option(
    "--query-rate",
    type=click.FloatRange(min=0.1),
    default=20.0,
    show_default=True,
    help="Queries a second beside bulk work.",
)
@click.option("--overload-seconds", type=_SECONDS, default=10.0, show_default=True, help="Length of the overload.")
@click.option(
    "--overload-texts",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Passages of one call of the overload.",
)
@click.option(
    "--overload-wait",
    type=click.FloatRange(min=0.01),
    default=0.2,
    show_default=True,
    metavar="SECONDS",
    help="Wait from which the overloaded service refuses calls: its --max-wait-seconds.",
)
@click.option("--model", help="Bi-encoder, by path or hub id; else the default one.")
@click.option("--reranker-model", help="Cross-encoder, by path or hub id; else the one that ships with Winnow.")
@click.option("--engine", help="Engine of our services: openvino or torch. Else they choose.")
@click.option(
    "--cache-dir", type=click.Path(file_okay=False, path_type=Path), help="Where our services keep converted models."
)
@bench_report.report_options
def inference(
    *,
    data: Path | None,
    passages: int,
    rerank_depth: int,
    rerank_queries: int,
    queries: int,
    rounds: int,
    peers: Path,
    dtypes: tuple[str, ...],
    only: tuple[str, ...],
    everything: bool,
    soak_seconds: float,
    mixed_seconds: float,
    query_rate: float,
    overload_seconds: float,
    overload_texts: int,
    overload_wait: float,
    model: str | None,
    reranker_model: str | None,
    engine: str | None,
    cache_dir: Path | None,
    out: Path,
    machine_readable: bool,
) -> None:
    """Measure the embedder and the reranker through their own gRPC, beside other engines in the same run.

    Parts: `embed` and `rerank` compare with sentence-transformers, fastembed and infinity, and with our engine alone;
    `query`, `mixed` and `overload` put load on the embedder; `soak` watches memory and checks every result.
    """
    parts = [part for part in PARTS if part in only or everything or (not only and part not in LONG_PARTS)]
    bi_encoder = locate(model).path if model else default_bi_encoder().path
    cross_encoder = locate(reranker_model).path if reranker_model else default_model().path
    flags = [("engine", engine), ("cache-dir", str(cache_dir.absolute()) if cache_dir else None)]
    found = peers if any(peers.glob("*/bin/python")) else None

    def measure() -> dict[str, Any]:
        with bench_report.progress() as progress:
            task = progress.add_task("gather texts", total=1)
            texts = read_texts(data, bi_encoder / "tokenizer.json", passages=passages, depth=rerank_depth)
            progress.advance(task)
            plan = Plan(
                texts=texts,
                models=Models(
                    bi_encoder=bi_encoder.absolute(),
                    cross_encoder=cross_encoder.absolute(),
                    dimension=json.loads((bi_encoder / "config.json").read_text())["hidden_size"],
                ),
                dtypes=dtypes,
                flags=tuple((name, value) for name, value in flags if value),
                peers=found,
                rounds=rounds,
                rerank_queries=rerank_queries,
                query_count=queries,
                mixed_seconds=mixed_seconds,
                query_rate=query_rate,
                overload_seconds=overload_seconds,
                overload_texts=overload_texts,
                overload_wait_seconds=overload_wait,
                soak_seconds=soak_seconds,
            )
            told = f"peers: {peers}" if found else f"no peers: there is nothing in {peers}; `make peers` fills it"
            try:
                measured = asyncio.run(_measure(plan, parts, progress))
            except asyncio.CancelledError:
                raise click.Abort from None
            return {"texts": _facts(plan), "peers": told, **measured}

    bench_report.report("inference", measure, out=out, machine_readable=machine_readable, show=show)


async def _measure(plan: Plan, parts: list[str], progress: Progress) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    # Ctrl-C is asyncio.run's own; this makes SIGTERM the same, so that nothing is left running.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    measured: dict[str, Any] = {}
    if "embed" in parts:
        measured["embed"] = await measure_embedding(plan, progress)
    if "rerank" in parts:
        measured["rerank"] = await measure_reranking(plan, progress)
    for part, measure in (
        ("query", measure_query),
        ("mixed", measure_mixed),
        ("overload", measure_overload),
        ("soak", measure_soak),
    ):
        if part in parts:
            measured[part] = await measure_each(plan, progress, measure)
    return measured


def _facts(plan: Plan) -> dict[str, Any]:
    texts = plan.texts
    return {
        "source": texts.source,
        "passages": len(texts.passages),
        "passage_tokens_mean": round(float(np.mean(texts.passage_tokens)), 1),
        "queries": len(texts.queries),
        "query_tokens_mean": round(float(np.mean(texts.query_tokens)), 1),
    }
