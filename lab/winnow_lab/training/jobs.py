"""From a command line to a trained model: reads and prepares data, makes evaluators, trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from winnow_inference.models.locating import default_bi_encoder, locate
from winnow_lab.data.converting import as_judged_set, groups_of, triplets_of
from winnow_lab.data.examples import (
    Data,
    Group,
    Groups,
    JudgedSet,
    Kind,
    ScoredPair,
    ScoredPairs,
    Triplet,
    Triplets,
    count_of,
    kind_of,
)
from winnow_lab.data.parsing import ScoreRange
from winnow_lab.data.reading import DEV_NAMES, read_data, splits_of
from winnow_lab.data.splitting import hold_out, sample
from winnow_lab.hashing import hash_of
from winnow_lab.training.encoding import embedder, taught
from winnow_lab.training.evaluating import (
    Sampling,
    bi_encoder_evaluators,
    candidates,
    cross_encoder_evaluators,
    group_samples,
    sampled,
)
from winnow_lab.training.finishing import Trained
from winnow_lab.training.made_once import made_once
from winnow_lab.training.mining import MiningSettings
from winnow_lab.training.negatives import find_negatives
from winnow_lab.training.run_folder import RunFolder
from winnow_lab.training.running import train_bi_encoder, train_cross_encoder
from winnow_lab.training.settings import Architecture, Loss, TrainingSettings, WeightFormat
from winnow_lab.training.starting import weights_hash
from winnow_reranker.assembly import default_model as default_cross_encoder
from winnow_rpc.faults import InvalidArgument


@dataclass(frozen=True, kw_only=True)
class Job:
    """What `winnow train` was asked for."""

    architecture: Architecture
    data: Path
    out: Path
    start: Path
    """Folder of the model that is trained on."""
    settings: TrainingSettings
    split: str = "train"
    dev: str = ""
    """A split or a path to evaluate on; empty: the split for it if there is one, else some is held out."""
    share: float = 0.05
    """Share that is held out where there is nothing to evaluate on; 0: train without evaluation."""
    kind: Kind | None = None
    score_range: ScoreRange | None = None
    skip_missing: bool = False
    limit: int = 0
    """Examples to train on at most; 0: all."""
    mining: MiningSettings = field(default_factory=MiningSettings)
    """Its count 0: no negatives are mined."""
    miner: Path
    """Folder of the bi-encoder that mines, and finds the candidates that a cross-encoder is evaluated on."""
    teacher: Path | None = None
    """Folder of a cross-encoder whose scores become the labels."""
    sampling: Sampling = field(default_factory=Sampling)
    overwrite: bool = False
    weights: WeightFormat = WeightFormat.FLOAT32


def locate_model(architecture: Architecture, name: str) -> Path:
    """The folder of a model by path or hub id; empty: the default. Raises NotFound or Unavailable."""
    if name:
        return locate(name).path
    return default_bi_encoder().path if architecture is Architecture.BI_ENCODER else default_cross_encoder().path


def with_loss(job: Job, loss: Loss) -> Job:
    """The same job with another loss."""
    return replace(job, settings=replace(job.settings, loss=loss))


def read(job: Job) -> tuple[Data, Data | None]:
    """The data to train on, and to evaluate on; None: nothing is evaluated."""
    data = _read(job, job.data, job.split)
    dev: Data | None
    usual = (name for name in DEV_NAMES if name in splits_of(job.data) and name != job.split)
    name = job.dev or next(usual, "")
    if name in splits_of(job.data):
        dev = _read(job, job.data, name)
    elif name:
        path = Path(name)
        dev = _read(job, path, next((split for split in DEV_NAMES if split in splits_of(path)), "test"))
    elif job.share:
        data, dev = hold_out(data, job.share, seed=job.settings.seed)
    else:
        dev = None
    return (sample(data, job.limit, seed=job.settings.seed) if job.limit else data), dev


def _read(job: Job, path: Path, split: str) -> Data:
    return read_data(path, split, kind=job.kind, score_range=job.score_range, skip_missing=job.skip_missing)


def run(job: Job, data: Data, dev: Data | None, *, say: Callable[[str], None]) -> Trained:
    """Trains. `say` is told what is done before it begins, in sentences."""
    folder = RunFolder(job.out)
    folder.check()
    source = f"{data.source} ({kind_of(data)}, {count_of(data):,})"
    common: dict[str, Any] = {"source": source, "overwrite": job.overwrite, "weights": job.weights}
    if dev is not None:
        dev = sampled(dev, job.sampling)
        common["evaluated_on"] = _evaluated_on(job, dev)
    if job.architecture is Architecture.BI_ENCODER:
        pairs_or_triplets = _for_bi_encoder(job, data, folder, say)
        evaluators = [] if dev is None else bi_encoder_evaluators(dev)
        return train_bi_encoder(job.start, pairs_or_triplets, job.settings, evaluators, job.out, **common)
    pairs_or_groups = _for_cross_encoder(job, data, folder, say)
    evaluators = [] if dev is None else _reranking(job, dev, folder, say)
    return train_cross_encoder(job.start, pairs_or_groups, job.settings, evaluators, job.out, **common)


def _for_bi_encoder(
    job: Job, data: Data, folder: RunFolder, say: Callable[[str], None]
) -> Sequence[Triplet] | Sequence[ScoredPair]:
    if isinstance(data, ScoredPairs):
        return data.pairs
    return triplets_of(data, _mined(job, data, folder, say) if _lacks_negatives(data) else None)


def _for_cross_encoder(
    job: Job, data: Data, folder: RunFolder, say: Callable[[str], None]
) -> Sequence[Group] | Sequence[ScoredPair]:
    if isinstance(data, ScoredPairs):
        return data.pairs
    if _lacks_negatives(data) and not job.mining.count:
        raise InvalidArgument(
            "a cross-encoder learns from documents that do not answer too: give --negatives 1 or more"
        )
    groups = groups_of(data, _mined(job, data, folder, say) if _lacks_negatives(data) else None)
    if job.teacher is None:
        if job.settings.loss is Loss.MARGIN_MSE and not isinstance(data, Groups):
            raise InvalidArgument(
                "margin-mse learns from a teacher's scores: name a cross-encoder with --teacher, or give groups whose "
                "labels are such scores"
            )
        return groups
    key = _key(hash_of([[asdict(group) for group in groups]]), weights_hash(job.teacher))
    say(f"the teacher scores {sum(len(group.documents) for group in groups):,} pairs")
    labels = made_once(
        folder.training / f"taught-{key}.jsonl.gz",
        lambda: ([*group.labels] for group in taught(groups, job.teacher or Path(), bf16=job.settings.bf16)),
    )
    return [replace(group, labels=tuple(row)) for group, row in zip(groups, labels, strict=True)]


def _lacks_negatives(data: Data) -> bool:
    return isinstance(data, JudgedSet) or (isinstance(data, Triplets) and not data.negatives)


def _mined(job: Job, data: Triplets | Groups | JudgedSet, folder: RunFolder, say: Callable[[str], None]) -> Any:
    if not job.mining.count:
        return {}
    judged = as_judged_set(data)
    key = _key(
        hash_of([[judged.documents, [[query.id, query.text, query.judgements] for query in judged.queries]]]),
        asdict(job.mining),
        weights_hash(job.miner),
        job.settings.seed,
    )
    path = folder.training / f"mined-{key}.jsonl.gz"
    if not path.exists():
        say(f"looking for hard negatives of {len(judged.queries):,} queries in {len(judged.documents):,} documents")
    embed = embedder(job.miner, bf16=job.settings.bf16)
    return dict(made_once(path, lambda: find_negatives(judged, embed, job.mining, seed=job.settings.seed).items()))


def _reranking(job: Job, dev: Data, folder: RunFolder, say: Callable[[str], None]) -> list[Any]:
    if isinstance(dev, ScoredPairs):
        return cross_encoder_evaluators(dev)
    if isinstance(dev, Groups):
        return cross_encoder_evaluators(None, group_samples(dev))
    judged = as_judged_set(dev)
    depth = job.sampling.depth
    key = _key(hash_of([[judged.documents, [query.text for query in judged.queries]]]), weights_hash(job.miner), depth)
    path = folder.training / f"candidates-{key}.jsonl.gz"
    if not path.exists():
        say(f"looking for the candidates of {len(judged.queries):,} queries in {len(judged.documents):,} documents")
    embed = embedder(job.miner, bf16=job.settings.bf16)
    return cross_encoder_evaluators(None, made_once(path, lambda: candidates(judged, embed, depth=depth)))


def _evaluated_on(job: Job, dev: Data) -> str:
    """Names all that decides a metric but the model that is trained."""
    searched = not isinstance(dev, ScoredPairs | Groups)
    found_by = [weights_hash(job.miner), job.sampling.depth] if searched else []
    return _key(job.architecture, asdict(replace(dev, source="", notes=())), *found_by)


def _key(*parts: Any) -> str:
    return hash_of([parts])[:12]
