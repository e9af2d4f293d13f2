"""Whole trainings of tiny models: they learn, repeat, and serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.learnable import groups, model_without_dropout, scored_pairs, triplets
from winnow_inference.models.loading import load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder
from winnow_inference.models.weights import sha256_of
from winnow_lab.data.examples import Groups, Triplets
from winnow_lab.training.columns import Examples
from winnow_lab.training.evaluating import bi_encoder_evaluators, cross_encoder_evaluators, group_samples
from winnow_lab.training.running import train_bi_encoder, train_cross_encoder
from winnow_lab.training.settings import Loss, TrainingSettings
from winnow_rpc.faults import FailedPrecondition, InvalidArgument

QUICK = {"batch_size": 8, "learning_rate": 1e-2, "warmup": 0.0}


def weights(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


def reranking(count: int = 16) -> list[Any]:
    return cross_encoder_evaluators(None, group_samples(Groups(source="", groups=groups(count, seed=9))))


def test_a_cross_encoder_learns_an_order_and_its_folder_serves(bi_encoder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(loss=Loss.LAMBDA, epochs=3, max_tokens=16, **QUICK)
    trained = train_cross_encoder(bi_encoder, groups(48), settings, reranking(), tmp_path / "out", source="bread")
    history = trained.history
    assert history.metric == "dev_ndcg@10"
    assert history.first is not None
    assert history.best is not None
    assert history.best.value > 0.95 > history.first.value
    assert trained.steps == 18
    assert [point.step for point in history.metrics] == [0, *range(2, 19, 2)]
    served = load_cross_encoder(ModelFolder(path=trained.out, id="out"), device="cpu")
    answer, other = served.module.predict([("what is one", "bread two"), ("what is one", "sea two")])
    assert answer > other
    # Trained on 16 tokens, it reads as many as before.
    assert served.facts.max_token_count == 32
    # Whoever runs the service may read it.
    assert (trained.out / "model.safetensors").stat().st_mode & 0o044 == 0o044
    assert "| best, which is this model |" in (trained.out / "README.md").read_text()
    assert (trained.out / "training" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (trained.out / "training" / "checkpoints").exists()


def test_a_bi_encoder_learns_what_answers_and_its_folder_serves(bi_encoder: Path, tmp_path: Path) -> None:
    evaluators = bi_encoder_evaluators(Triplets(source="", triplets=triplets(16, seed=9)))
    settings = TrainingSettings(loss=Loss.MNR, epochs=4, **QUICK)
    trained = train_bi_encoder(bi_encoder, triplets(48), settings, evaluators, tmp_path / "out")
    assert trained.history.metric == "dev_cosine_ndcg@10"
    assert trained.history.first is not None
    assert trained.history.best is not None
    assert trained.history.best.value > trained.history.first.value
    served = load_bi_encoder(ModelFolder(path=trained.out, id="out"), device="cpu")
    assert served.facts.normalized
    query, answer, other = served.module.encode(["what is one", "bread two", "sea two"])
    assert query @ answer > query @ other


@pytest.mark.parametrize(
    ("loss", "examples"),
    [(Loss.COSINE, scored_pairs(16)), (Loss.MNR, triplets(16)), (Loss.CACHED_MNR, triplets(16))],
)
def test_every_loss_trains_a_bi_encoder(bi_encoder: Path, tmp_path: Path, loss: Loss, examples: Any) -> None:
    settings = TrainingSettings(loss=loss, mini_batch=4, **QUICK)
    trained = train_bi_encoder(bi_encoder, examples, settings, [], tmp_path / "out")
    assert trained.steps == 2
    assert weights(trained.out) != weights(bi_encoder)


@pytest.mark.parametrize("loss", [Loss.BCE, Loss.LAMBDA, Loss.LISTNET, Loss.MARGIN_MSE])
def test_every_loss_trains_a_cross_encoder(cross_encoder: Path, tmp_path: Path, loss: Loss) -> None:
    settings = TrainingSettings(loss=loss, max_steps=2, **QUICK)
    trained = train_cross_encoder(cross_encoder, groups(16), settings, [], tmp_path / "out")
    assert trained.steps == 2
    assert all(np.isfinite(point.value) for point in trained.history.losses)
    assert weights(trained.out) != weights(cross_encoder)


def test_scored_pairs_are_judged_by_correlation(cross_encoder: Path, bi_encoder: Path, tmp_path: Path) -> None:
    from winnow_lab.data.examples import ScoredPairs

    pairs = scored_pairs(32)
    dev = ScoredPairs(source="", pairs=pairs)
    one = train_cross_encoder(
        cross_encoder, pairs, TrainingSettings(loss=Loss.BCE, **QUICK), cross_encoder_evaluators(dev), tmp_path / "ce"
    )
    other = train_bi_encoder(
        bi_encoder, pairs, TrainingSettings(loss=Loss.COSINE, **QUICK), bi_encoder_evaluators(dev), tmp_path / "bi"
    )
    assert (one.history.metric, other.history.metric) == ("dev_spearman", "dev_spearman_cosine")


def test_a_bi_encoder_becomes_a_cross_encoder_with_a_new_head(bi_encoder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(loss=Loss.LAMBDA, max_steps=1, **QUICK)
    trained = train_cross_encoder(bi_encoder, groups(8), settings, [], tmp_path / "out")
    assert load_cross_encoder(ModelFolder(path=trained.out, id="out"), device="cpu").facts.labels == ("LABEL_0",)


def test_the_same_seed_gives_the_same_model_and_another_another(bi_encoder: Path, tmp_path: Path) -> None:
    def train(seed: int, name: str) -> str:
        # A new head, an order of examples and dropout: all of them drawn.
        settings = TrainingSettings(loss=Loss.LAMBDA, seed=seed, **QUICK)
        return weights(train_cross_encoder(bi_encoder, groups(24), settings, [], tmp_path / name).out)

    assert train(1, "a") == train(1, "b") != train(2, "c")


def test_a_batch_in_parts_makes_the_same_step(tmp_path: Path) -> None:
    start = model_without_dropout(tmp_path / "start")

    def losses(accumulate: int) -> list[float]:
        settings = TrainingSettings(loss=Loss.BCE, accumulate=accumulate, every=1, **QUICK)
        trained = train_cross_encoder(start, scored_pairs(32), settings, [], tmp_path / f"out{accumulate}")
        return [point.value for point in trained.history.losses]

    assert losses(4) == pytest.approx(losses(1), rel=1e-4)


def test_padding_that_is_not_computed_changes_nothing(tmp_path: Path) -> None:
    start = model_without_dropout(tmp_path / "start")

    def losses(crop: bool) -> list[float]:
        settings = TrainingSettings(loss=Loss.LAMBDA, crop=crop, every=1, **QUICK)
        trained = train_cross_encoder(start, groups(32), settings, [], tmp_path / f"out{crop}")
        return [point.value for point in trained.history.losses]

    assert losses(True) == pytest.approx(losses(False), rel=1e-4)


def test_bfloat16_trains_float32_weights(cross_encoder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(loss=Loss.LAMBDA, bf16=True, **QUICK)
    trained = train_cross_encoder(cross_encoder, groups(16), settings, reranking(4), tmp_path / "out")
    loaded = load_cross_encoder(ModelFolder(path=trained.out, id="out"), device="cpu", dtype="float32")
    assert {str(each.dtype) for each in loaded.module.parameters()} == {"torch.float32"}


def test_the_best_metric_may_be_named_and_an_unknown_one_is_refused(cross_encoder: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(loss=Loss.LAMBDA, metric="mrr@10", max_steps=1, **QUICK)
    trained = train_cross_encoder(cross_encoder, groups(8), settings, reranking(4), tmp_path / "a")
    assert trained.history.metric == "dev_mrr@10"
    unknown = TrainingSettings(loss=Loss.LAMBDA, metric="precision", max_steps=1, **QUICK)
    with pytest.raises(InvalidArgument, match=r"no metric 'precision'.*dev_ndcg@10"):
        train_cross_encoder(cross_encoder, groups(8), unknown, reranking(4), tmp_path / "b")


def test_the_mean_of_several_evaluators_decides(cross_encoder: Path, tmp_path: Path) -> None:
    one, other = reranking(4)[0], reranking(8)[0]
    one.name, other.name = "one", "other"
    settings = TrainingSettings(loss=Loss.LAMBDA, max_steps=1, **QUICK)
    trained = train_cross_encoder(cross_encoder, groups(8), settings, [one, other], tmp_path / "out")
    last = trained.history.evaluations[-1]
    assert last["sequential_score"] == pytest.approx((last["one_ndcg@10"] + last["other_ndcg@10"]) / 2)
    assert trained.history.last is not None
    assert trained.history.last.value == last["sequential_score"]


@pytest.mark.parametrize("examples", [[], triplets(8)])
def test_examples_that_do_not_fit_the_loss_are_refused(cross_encoder: Path, tmp_path: Path, examples: Examples) -> None:
    with pytest.raises(InvalidArgument):
        train_cross_encoder(cross_encoder, examples, TrainingSettings(loss=Loss.LAMBDA), [], tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_cross_encoder_of_several_classes_is_refused(tmp_path: Path) -> None:
    from tests.models.tiny import build_cross_encoder

    start = build_cross_encoder(tmp_path / "m", labels=["no", "maybe", "yes"])
    with pytest.raises(FailedPrecondition, match="has 3 outputs"):
        train_cross_encoder(start, groups(8), TrainingSettings(loss=Loss.LAMBDA), [], tmp_path / "out")
