"""What the losses are given."""

from __future__ import annotations

import pytest

from winnow_lab.data.examples import Group, Kind, ScoredPair, Triplet
from winnow_lab.training.columns import columns_for
from winnow_lab.training.settings import LOSSES, Architecture, Loss, TrainingSettings, choose_loss
from winnow_rpc.faults import InvalidArgument

GROUPS = [Group("q", ("a", "b", "c"), (1.0, 0.5, 0.0)), Group("r", ("d", "e"), (0.0, 1.0))]


def test_scored_pairs_become_two_texts_and_a_label() -> None:
    for loss in (Loss.COSINE, Loss.BCE):
        columns = columns_for(loss, [ScoredPair("a", "b", 0.5)])
        assert columns == {"sentence1": ["a"], "sentence2": ["b"], "label": [0.5]}


def test_triplets_become_anchor_positive_and_as_many_negatives_as_all_have() -> None:
    columns = columns_for(Loss.MNR, [Triplet("a", "b", ("c", "d")), Triplet("e", "f", ("g",))])
    assert columns == {"anchor": ["a", "e"], "positive": ["b", "f"], "negative_1": ["c", "g"]}
    assert list(columns) == ["anchor", "positive", "negative_1"]


def test_groups_become_lists_for_a_listwise_loss() -> None:
    columns = columns_for(Loss.LAMBDA, GROUPS)
    assert columns["documents"] == [["a", "b", "c"], ["d", "e"]]
    assert columns["labels"] == [[1.0, 0.5, 0.0], [0.0, 1.0]]


def test_listnets_labels_are_sharpened() -> None:
    assert columns_for(Loss.LISTNET, GROUPS, sharpness=10)["labels"] == [[10.0, 5.0, 0.0], [0.0, 10.0]]


def test_groups_become_pairs_for_cross_entropy() -> None:
    columns = columns_for(Loss.BCE, GROUPS[1:])
    assert columns == {"query": ["r", "r"], "document": ["d", "e"], "label": [0.0, 1.0]}


def test_groups_become_differences_to_the_best_for_distillation() -> None:
    columns = columns_for(Loss.MARGIN_MSE, [Group("q", ("a", "b", "c"), (-3.0, 4.0, 1.0))])
    assert list(columns) == ["query", "positive", "negative", "label"]
    assert list(zip(*columns.values(), strict=True)) == [("q", "b", "a", 7.0), ("q", "b", "c", 3.0)]


@pytest.mark.parametrize("loss", [Loss.BCE, Loss.LAMBDA])
def test_a_teachers_scores_are_no_grades(loss: Loss) -> None:
    with pytest.raises(InvalidArgument, match=r"-3.*for margin-mse or listnet"):
        columns_for(loss, [Group("q", ("a", "b"), (-3.0, 4.0))])


def test_one_label_only_teaches_cross_entropy_nothing() -> None:
    with pytest.raises(InvalidArgument, match="all labels are the same"):
        columns_for(Loss.BCE, [Group("q", ("a", "b"), (1.0, 1.0))])


def test_each_kind_of_data_has_a_loss_for_each_model_and_others_are_refused() -> None:
    for architecture in Architecture:
        assert set(LOSSES[architecture]) == set(Kind)
    assert choose_loss(Architecture.CROSS_ENCODER, Kind.RETRIEVAL, None) is Loss.LAMBDA
    assert choose_loss(Architecture.BI_ENCODER, Kind.SCORED_PAIRS, None) is Loss.COSINE
    assert choose_loss(Architecture.BI_ENCODER, Kind.PAIRS, Loss.CACHED_MNR) is Loss.CACHED_MNR
    with pytest.raises(
        InvalidArgument, match="the loss cosine does not train a cross-encoder on groups; what does: lambda"
    ):
        choose_loss(Architecture.CROSS_ENCODER, Kind.GROUPS, Loss.COSINE)


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"epochs": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"seed": -1}, {"max_tokens": 2}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        TrainingSettings(loss=Loss.MNR, **wrong)  # type: ignore[arg-type]


def test_a_batch_is_shared_out_among_processes_and_parts() -> None:
    settings = TrainingSettings(loss=Loss.MNR, batch_size=32, accumulate=2)
    assert settings.per_process(4) == 4
    with pytest.raises(InvalidArgument, match="choose a multiple of 6"):
        settings.per_process(3)


def test_a_training_is_evaluated_ten_times_unless_told() -> None:
    settings = TrainingSettings(loss=Loss.MNR, batch_size=10, epochs=2)
    assert (settings.steps(1005), settings.interval(1005)) == (200, 20)
    assert TrainingSettings(loss=Loss.MNR, every=7).interval(1000) == 7
    assert TrainingSettings(loss=Loss.MNR, max_steps=3).interval(1000) == 1
