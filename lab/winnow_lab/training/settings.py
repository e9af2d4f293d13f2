"""What a training is asked to be. Values and their rules; nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from winnow_lab.data.examples import Kind
from winnow_rpc.faults import InvalidArgument


class Architecture(StrEnum):
    """What is trained."""

    BI_ENCODER = "bi-encoder"
    CROSS_ENCODER = "cross-encoder"


class WeightFormat(StrEnum):
    """Number format in which weights are stored. It says nothing of what a training or a service computes in."""

    FLOAT32 = "float32"
    """As they were trained."""
    FLOAT16 = "float16"
    """Rounded to half the bytes."""


class Loss(StrEnum):
    """A loss function of sentence-transformers, by the name that the command line gives it."""

    COSINE = "cosine"
    """Squared error of the cosine against the score (CosineSimilarityLoss)."""
    MNR = "mnr"
    """The positive against all other passages of the batch (MultipleNegativesRankingLoss, InfoNCE)."""
    CACHED_MNR = "cached-mnr"
    """The same in small parts, for batches that memory does not hold (GradCache)."""
    BCE = "bce"
    """Binary cross-entropy of the score against the label, pair by pair."""
    LAMBDA = "lambda"
    """LambdaLoss, weights NDCG-Loss2++: pairs in the wrong order cost what they cost in nDCG."""
    LISTNET = "listnet"
    """Cross-entropy of the documents' softmax against that of the labels (ListNet)."""
    MARGIN_MSE = "margin-mse"
    """Squared error of score differences against a teacher's: distillation (MarginMSE)."""


LOSSES: dict[Architecture, dict[Kind, tuple[Loss, ...]]] = {
    Architecture.BI_ENCODER: {
        Kind.SCORED_PAIRS: (Loss.COSINE,),
        **dict.fromkeys((Kind.RETRIEVAL, Kind.PAIRS, Kind.TRIPLETS, Kind.GROUPS), (Loss.MNR, Loss.CACHED_MNR)),
    },
    Architecture.CROSS_ENCODER: {
        Kind.SCORED_PAIRS: (Loss.BCE,),
        **dict.fromkeys(
            (Kind.RETRIEVAL, Kind.PAIRS, Kind.TRIPLETS, Kind.GROUPS),
            (Loss.LAMBDA, Loss.LISTNET, Loss.BCE, Loss.MARGIN_MSE),
        ),
    },
}
"""The losses that fit a kind of data; the first is the default."""


def choose_loss(architecture: Architecture, kind: Kind, wanted: Loss | None) -> Loss:
    """The loss to train with. Raises InvalidArgument if the one that is wanted does not fit the data."""
    fitting = LOSSES[architecture][kind]
    if wanted is not None and wanted not in fitting:
        raise InvalidArgument(
            f"the loss {wanted} does not train a {architecture} on {kind}; what does: {', '.join(fitting)}",
            field="loss",
        )
    return wanted or fitting[0]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train. The same settings, data and starting model give the same model again."""

    loss: Loss
    """What is minimised."""
    batch_size: int = 32
    """Examples of one optimizer step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts in which a batch is computed, one after another: less memory, the same step. With mnr, a part's negatives
    are its own passages alone."""
    epochs: float = 1.0
    """Passes over the data."""
    max_steps: int = 0
    """Optimizer steps after which it ends; 0: when the epochs do."""
    learning_rate: float = 2e-5
    """At its highest, after the warm-up."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    decay: float = 1.0
    """Share of the steps, the last ones, in which the learning rate falls to 0; 1: from the end of the warm-up, in a
    line. Less holds it at its highest meanwhile, so that a training may be ended earlier than was planned."""
    dropout: float = 0.0
    """Share of activations and attention that is dropped. None by default: a fine-tuning sees its examples once or
    twice, and drawing the masks takes a third of a step on a CPU."""
    weight_decay: float = 0.01
    """Of AdamW; not for biases and layer norms."""
    max_tokens: int = 256
    """Tokens of a text (bi-encoder) or pair (cross-encoder) read in training; the model keeps its own limit."""
    seed: int = 0
    """Of the order of examples, dropout, a new head, and everything drawn."""
    bf16: bool = False
    """Compute in bfloat16 (weights stay float32)."""
    every: int = 0
    """Steps between evaluations, and between checkpoints; 0: a tenth of the training."""
    metric: str = ""
    """The metric that says which model is best; empty: the evaluator's own main one."""
    patience: int = 0
    """Evaluations without a better metric after which training stops; 0: it never stops early."""
    mini_batch: int = 32
    """Texts of one part of the loss cached-mnr."""
    sharpness: float = 10.0
    """ListNet's target is softmax(sharpness × label): with 10, one label of 1 among zeros is nearly all of it."""
    crop: bool = True
    """Do not compute padding (`winnow_lab.training.cropping`)."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("accumulate", 1), ("max_tokens", 8), ("mini_batch", 1)):
            if getattr(self, name) < least:
                raise InvalidArgument(f"{name} must be at least {least}", field=name)
        for name in ("max_steps", "every", "patience", "seed", "weight_decay"):
            if getattr(self, name) < 0:
                raise InvalidArgument(f"{name} must not be negative", field=name)
        for name in ("epochs", "learning_rate", "sharpness"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(f"{name} must be above 0", field=name)
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidArgument(f"{name} is a share: from 0 to below 1", field=name)
        if not 0 < self.decay <= 1:
            raise InvalidArgument("decay is a share of the steps: above 0, at most 1", field="decay")

    def per_process(self, processes: int) -> int:
        """Examples that a process computes at once. Raises InvalidArgument if the batch cannot be shared out evenly."""
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise InvalidArgument(
                f"a batch of {self.batch_size} cannot be shared out evenly among {processes} processes in "
                f"{self.accumulate} parts each: choose a multiple of {parts}",
                field="batch_size",
            )
        return self.batch_size // parts

    def steps(self, examples: int) -> int:
        """Optimizer steps of the whole training."""
        if self.max_steps:
            return self.max_steps
        whole = examples // self.batch_size
        return max(1, int(max(1, whole) * self.epochs + 0.999999))

    def interval(self, examples: int) -> int:
        """Steps between evaluations."""
        return self.every or max(1, -(-self.steps(examples) // 10))
