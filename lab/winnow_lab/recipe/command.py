"""`winnow train shipped-reranker`: the cross-encoder that ships with Winnow, from texts to a folder that serves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from winnow_client.cli.output import console, emit, say
from winnow_lab.training.settings import Architecture, Loss, TrainingSettings, WeightFormat
from winnow_rpc.faults import NotFound

if TYPE_CHECKING:
    from winnow_lab.recipe.preparing import Folders

_PATH = click.Path(exists=True, path_type=Path)
_FULL_STEPS = 640


def settings_for(share: float, *, seed: int) -> TrainingSettings:
    """How the shipped model was trained; a share of it takes that share of the steps."""
    return TrainingSettings(
        loss=Loss.LISTNET,
        batch_size=32,
        accumulate=4,
        max_steps=max(2, round(share * _FULL_STEPS)),
        learning_rate=5e-5,
        warmup=40 / _FULL_STEPS,
        decay=220 / _FULL_STEPS,
        max_tokens=224,
        sharpness=12.0,
        bf16=True,
        seed=seed,
    )


@click.command(
    "shipped-reranker", epilog="Example: winnow train shipped-reranker data --out runs/reranker --share 0.02"
)
@click.argument("data", type=_PATH)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@click.option(
    "--from", "start", metavar="MODEL", default="", help="Model to start from.  [default: the cross-encoder that ships]"
)
@click.option("--packages", type=_PATH, help="Debian's Translation-en, to learn from its descriptions too.")
@click.option("--medical", type=_PATH, help="A copy of github.com/abachaa/MedQuAD, to learn from it too.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Train with so much of it: 0.02 shows in some minutes that all works.",
)
@click.option(
    "--queries",
    type=click.IntRange(min=0),
    default=150,
    show_default=True,
    help="Queries of a set to calibrate with; 0: do not.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same gives the same.")
@click.option("--overwrite", is_flag=True, help="Begin anew, whatever an earlier training left in --out.")
@click.option("--json", "machine_readable", is_flag=True, help="Write the result to standard output as JSON.")
@click.pass_context
def shipped_reranker(
    context: click.Context,
    *,
    data: Path,
    out: Path,
    start: str,
    packages: Path | None,
    medical: Path | None,
    share: float,
    queries: int,
    seed: int,
    overwrite: bool,
    machine_readable: bool,
) -> None:
    """Train the cross-encoder that ships with Winnow.

    DATA holds squad/, travel-dup/, cranfield/ and npl/ in the BEIR layout and stsb/ with its splits. Finds hard
    negatives, says how long the training will take, trains, stores the weights in float16, and learns mixing and
    calibration. The same command goes on where it was stopped. With --json there is a line for the training, and one
    for the calibration.
    """
    from winnow_lab.recipe.preparing import Folders
    from winnow_lab.training.jobs import locate_model
    from winnow_lab.training.presenting import as_json, show

    if queries:
        # Before hours of training, not after.
        _check_sets(data)
    settings = settings_for(share, seed=seed)
    folders = Folders(data=data, packages=packages, medical=medical)
    trained = _train(folders, locate_model(Architecture.CROSS_ENCODER, start), settings, out, share, overwrite)
    if machine_readable:
        emit(as_json(trained, Architecture.CROSS_ENCODER))
    else:
        show(trained, Architecture.CROSS_ENCODER, console())
    if queries:
        _calibrate(context, data, out, queries, machine_readable)


def _train(folders: Folders, start: Path, settings: TrainingSettings, out: Path, share: float, overwrite: bool) -> Any:
    from winnow_lab.data.examples import Group
    from winnow_lab.recipe.estimating import estimate
    from winnow_lab.recipe.preparing import gather, groups_file, make_groups
    from winnow_lab.training.encoding import embedder
    from winnow_lab.training.jobs import locate_model
    from winnow_lab.training.made_once import made_once
    from winnow_lab.training.run_folder import RunFolder
    from winnow_lab.training.running import train_cross_encoder

    folder = RunFolder(out)
    folder.check()

    miner = locate_model(Architecture.BI_ENCODER, "")

    def make() -> Any:
        found = gather(folders, share=share, draw=random.Random(settings.seed))
        embed = embedder(miner, bf16=settings.bf16)
        for group in make_groups(found, embed, seed=settings.seed, say=say):
            yield [group.query, group.documents, group.labels]

    rows = made_once(folder.training / groups_file(folders, miner, share=share, seed=settings.seed), make)
    groups = [Group(query, tuple(documents), tuple(labels)) for query, documents, labels in rows]
    if not folder.finished() or overwrite:
        here, there = estimate(start, groups, settings)
        say(
            f"{settings.steps(len(groups)):,} steps of {settings.batch_size} of {len(groups):,} groups: about "
            f"{here / 60:,.0f} minutes on this machine; on one GPU about {there / 60:,.1f}, reckoned and not measured"
        )
    return train_cross_encoder(
        start,
        groups,
        settings,
        [],
        out,
        source="the recipe's sources",
        overwrite=overwrite,
        weights=WeightFormat.FLOAT16,
    )


def _check_sets(data: Path) -> None:
    from winnow_lab.data.beir import is_judged_set, splits_of

    for name, split in _CALIBRATED:
        folder = data / name
        if not (is_judged_set(folder) and set(splits_of(folder)) >= {split, "test"}):
            raise NotFound(
                f"mixing and calibration are learned from {folder} in the BEIR layout, with the splits {split} and "
                f"test: add them, or leave that out with --queries 0"
            )


def _calibrate(context: click.Context, data: Path, out: Path, queries: int, machine_readable: bool) -> None:
    from winnow_lab.calibrating.command import calibrate

    learned = [f"{data / name}:{split}" for name, split in _CALIBRATED]
    checked = [f"{data / name}:test" for name, _ in _CALIBRATED]
    context.invoke(
        calibrate,
        reranker=out,
        learned_from=tuple(learned),
        checked_on=tuple(checked),
        queries=queries,
        machine_readable=machine_readable,
    )


_CALIBRATED = (("squad", "dev"), ("travel-dup", "dev"), ("cranfield", "test"), ("npl", "test"))
# The two without other judgements are halved: one half is learned from, the other checked on.
