"""`winnow train`: the options. A plug-in of the `winnow` command; what computes is loaded when a training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from winnow_client.cli.output import console, emit, say
from winnow_lab.data.examples import Kind, count_of, kind_of
from winnow_lab.data.parsing import ScoreRange
from winnow_lab.recipe.command import shipped_reranker
from winnow_lab.training.distributed import is_first
from winnow_lab.training.settings import LOSSES, Architecture, Loss, TrainingSettings, WeightFormat, choose_loss
from winnow_rpc.faults import InvalidArgument

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_DEFAULTS = TrainingSettings(loss=Loss.MNR)


class ScoreRangeType(click.ParamType[ScoreRange]):
    """What scores run from and to, as "0:5"."""

    name = "low:high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ScoreRange:
        """The range."""
        if isinstance(value, ScoreRange):
            return value
        low, _, high = str(value).partition(":")
        try:
            return ScoreRange(float(low), float(high))
        except (ValueError, InvalidArgument):
            self.fail(f"{value!r} is no range: write it as 0:5.", param, ctx)


def _options(architecture: Architecture) -> Callable[[FunctionT], FunctionT]:
    """The options of both commands; defaults and help differ where the models do."""
    bi = architecture is Architecture.BI_ENCODER
    fitting = list(dict.fromkeys(loss for losses in LOSSES[architecture].values() for loss in losses))
    at_least_one, share = click.IntRange(min=1), click.FloatRange(0, 1, max_open=True)
    a_path = click.Path(path_type=Path)
    options = [
        click.argument("data", type=a_path),
        click.option("--out", type=a_path, required=True, help="Folder for the model; a kill is gone on from there."),
        click.option("--from", "start", metavar="MODEL", default="", help=_START[architecture]),
        click.option(
            "--split", default="train", show_default=True, help="Split of DATA to train on, if it has splits."
        ),
        click.option(
            "--dev",
            default="",
            metavar="SPLIT|PATH",
            help="What to evaluate on.  [default: the split dev or validation; else --hold-out]",
        ),
        click.option("--hold-out", "share", type=share, default=0.05, show_default=True, help=_HOLD_OUT),
        click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help=_KIND),
        click.option("--score-range", type=ScoreRangeType(), help="What scores run from and to.  [default: 0:1]"),
        click.option("--skip-missing", is_flag=True, help="Leave out judgements of documents that are not there."),
        click.option("--limit", type=at_least_one, default=None, help="Train on so many of the examples."),
        click.option(
            "--loss",
            type=click.Choice([loss.value for loss in fitting]),
            help="Loss function.  [default: by the kind of data]",
        ),
        click.option(
            "--batch",
            "batch_size",
            type=at_least_one,
            default=64 if bi else 32,
            show_default=True,
            help="Examples of one step, over all processes: pairs, triplets or groups.",
        ),
        click.option("--accumulate", type=at_least_one, default=1, show_default=True, help=_ACCUMULATE),
        click.option("--epochs", type=float, default=1.0, show_default=True, help="Passes over the data."),
        click.option("--steps", "max_steps", type=at_least_one, default=None, help="End after so many steps instead."),
        click.option("--learning-rate", type=float, default=2e-5, show_default=True, help="At its highest."),
        click.option("--warmup", type=share, default=0.1, show_default=True, help="Share of the steps to reach it in."),
        click.option(
            "--decay", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help=_DECAY
        ),
        click.option("--dropout", type=share, default=0.0, show_default=True, help=_DROPOUT),
        click.option("--max-tokens", type=click.IntRange(min=8), default=256, show_default=True, help=_MAX_TOKENS),
        click.option(
            "--bf16", is_flag=True, help="Compute in bfloat16: about twice as fast where there is hardware for it."
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same gives the same."
        ),
        click.option("--every", type=at_least_one, default=None, help=_EVERY),
        click.option("--metric", default="", help=_METRIC),
        click.option("--patience", type=click.IntRange(min=0), default=0, show_default=True, help=_PATIENCE),
        click.option(
            "--negatives",
            type=click.IntRange(min=0),
            default=0 if bi else 7,
            show_default=True,
            help="Hard negatives to mine for each query that comes without.",
        ),
        click.option("--mining-depth", type=at_least_one, default=100, show_default=True, help=_MINING_DEPTH),
        click.option("--mining-near", type=at_least_one, default=20, show_default=True, help=_MINING_NEAR),
        click.option("--mining-margin", type=float, default=0.02, show_default=True, help=_MINING_MARGIN),
        click.option(
            "--dev-queries", type=at_least_one, default=200, show_default=True, help="Queries to evaluate with."
        ),
        click.option("--dev-documents", type=at_least_one, default=5000, show_default=True, help=_DEV_DOCUMENTS),
        click.option(
            "--store",
            "weights",
            type=click.Choice([each.value for each in WeightFormat]),
            default=WeightFormat.FLOAT32.value,
            show_default=True,
            help="Number format of the weights in --out; float16 takes half the space.",
        ),
        click.option("--overwrite", is_flag=True, help="Begin anew, whatever an earlier training left in --out."),
        click.option("--json", "machine_readable", is_flag=True, help="Write the result to standard output as JSON."),
    ]
    if not bi:
        options += [
            click.option("--miner", metavar="MODEL", default="", help=_MINER),
            click.option(
                "--teacher", metavar="MODEL", default="", help="Cross-encoder whose scores become the labels."
            ),
            click.option("--dev-depth", type=at_least_one, default=30, show_default=True, help=_DEV_DEPTH),
        ]

    def decorate(function: FunctionT) -> FunctionT:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_START = {
    Architecture.BI_ENCODER: "Bi-encoder to start from: a path or hub id.  [default: all-MiniLM-L6-v2]",
    Architecture.CROSS_ENCODER: (
        "Model to start from: a cross-encoder, or an encoder that gets a new head.  [default: the one that ships]"
    ),
}
_KIND = "What DATA holds.  [default: found out from its columns]"
_METRIC = "Metric that says which model is best, as ndcg@10.  [default: the main one]"
_HOLD_OUT = "Share of the queries to evaluate on if DATA has no split for it; 0: do not evaluate."
_ACCUMULATE = "Compute a batch in so many parts, one after another, to save memory."
_DECAY = "Share of the steps, the last ones, in which the learning rate falls; 1: from the warm-up on, in a line."
_DROPOUT = "Share of activations to drop; on a CPU it makes a step half as long again."
_MAX_TOKENS = "Read at most so many tokens of a text or pair."
_EVERY = "Steps between evaluations and between checkpoints.  [default: a tenth of all]"
_PATIENCE = "Stop after so many evaluations without a better metric; 0: never."
_MINING_DEPTH = "Neighbours of a query, by vectors and by words, that negatives are drawn from."
_MINING_NEAR = "Half of the negatives are drawn from the first so many."
_MINING_MARGIN = "Leave out what is nearer to the query than its answer by this cosine and ahead of it by words too."
_DEV_DOCUMENTS = "Documents to look among: those that were judged, and others by chance."
_MINER = "Bi-encoder that mines negatives and finds candidates: a path or hub id.  [default: all-MiniLM-L6-v2]"
_DEV_DEPTH = "Candidates of a query to rerank."


@click.group(epilog="Example: winnow train cross-encoder my-set --out my-reranker")
def train() -> None:
    """Train a model on your own data.

    DATA is a folder in the BEIR layout (corpus.jsonl, queries.jsonl, qrels/), a folder with a file for each split, or
    one file: JSONL, CSV, TSV or Parquet with the columns sentence1, sentence2, score; anchor, positive and perhaps
    negative (or negative_1, negative_2 and so on); or query, documents, labels. Text files may be gzipped.

    The folder that --out names serves as it is. A training that was killed goes on from its last checkpoint when the
    same command is given again. On several GPUs, or in several processes: torchrun --nproc-per-node 2 -m
    winnow_lab.training, and then the same as after `winnow train`.
    """


@train.command("bi-encoder", epilog="Example: winnow train bi-encoder my-set --out my-embedder --negatives 4")
@_options(Architecture.BI_ENCODER)
def bi_encoder(**given: Any) -> None:
    """Train the model that finds candidates: vectors of queries near those of their answers."""
    _train(Architecture.BI_ENCODER, given)


@train.command("cross-encoder", epilog="Example: winnow train cross-encoder my-set --out my-reranker --bf16")
@_options(Architecture.CROSS_ENCODER)
def cross_encoder(**given: Any) -> None:
    """Train the model that reranks: the score of a query and a document together."""
    _train(Architecture.CROSS_ENCODER, given)


def _train(architecture: Architecture, given: dict[str, Any]) -> None:
    from winnow_lab.training import jobs
    from winnow_lab.training.presenting import as_json, show

    def tell(text: str) -> None:
        if is_first():
            say(text)

    job = _job(architecture, given)
    data, dev = jobs.read(job)
    loss = choose_loss(architecture, kind_of(data), given["loss"] and Loss(given["loss"]))
    job = jobs.with_loss(job, loss)
    tell(f"train on {data.source}: {count_of(data):,} {kind_of(data)}, loss {loss}")
    for note in data.notes:
        tell(f"  {note}")
    tell("evaluate on nothing" if dev is None else f"evaluate on {dev.source}: {count_of(dev):,} {kind_of(dev)}")
    try:
        trained = jobs.run(job, data, dev, say=tell)
    except KeyboardInterrupt:
        tell("the same command goes on from the last checkpoint.")
        raise
    if is_first():
        if given["machine_readable"]:
            emit(as_json(trained, architecture))
        else:
            show(trained, architecture, console())


def _job(architecture: Architecture, given: dict[str, Any]) -> Any:
    """The job, with the models found; the loss is chosen when the data are known."""
    from winnow_lab.training.evaluating import Sampling
    from winnow_lab.training.jobs import Job, locate_model
    from winnow_lab.training.mining import MiningSettings

    names = (
        "batch_size",
        "accumulate",
        "epochs",
        "learning_rate",
        "warmup",
        "decay",
        "dropout",
        "max_tokens",
        "seed",
        "bf16",
    )
    settings = TrainingSettings(
        loss=_DEFAULTS.loss,
        max_steps=given["max_steps"] or 0,
        every=given["every"] or 0,
        metric=given["metric"],
        patience=given["patience"],
        **{name: given[name] for name in names},
    )
    start = locate_model(architecture, given["start"])
    miner = given.get("miner") or ("" if architecture is Architecture.CROSS_ENCODER else str(start))
    return Job(
        architecture=architecture,
        data=given["data"],
        out=given["out"],
        start=start,
        settings=settings,
        limit=given["limit"] or 0,
        weights=WeightFormat(given["weights"]),
        kind=given["kind"] and Kind(given["kind"]),
        mining=MiningSettings(
            count=given["negatives"],
            depth=given["mining_depth"],
            near=given["mining_near"],
            margin=given["mining_margin"],
        ),
        miner=locate_model(Architecture.BI_ENCODER, miner),
        teacher=locate_model(architecture, given["teacher"]) if given.get("teacher") else None,
        sampling=Sampling(
            queries=given["dev_queries"],
            documents=given["dev_documents"],
            depth=given.get("dev_depth") or Sampling().depth,
            seed=given["seed"],
        ),
        **{name: given[name] for name in ("split", "dev", "share", "score_range", "skip_missing", "overwrite")},
    )


train.add_command(shipped_reranker)
