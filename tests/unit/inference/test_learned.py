import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from winnow_inference.models.learned import (
    NOTHING_LEARNED,
    Isotonic,
    Learned,
    Mixing,
    Platt,
    ScoreMixing,
    ScoreMixings,
    log_odds,
    read_learned,
    write_learned,
)
from winnow_rpc.faults import FailedPrecondition

MIXING = {"k": 10, "retrieval_weight": 1.0, "rerank_weight": 2}
PLATT = {"method": "platt", "scale": 0.5, "bias": -1}
ISOTONIC = {"method": "isotonic", "scores": [-2, 0, 3], "probabilities": [0.1, 0.1, 0.9]}


def stored(folder: Path, content: Any) -> Path:
    (folder / "winnow.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_model_without_the_file_has_learned_nothing(tmp_path: Path) -> None:
    assert read_learned(tmp_path) == NOTHING_LEARNED
    assert read_learned(stored(tmp_path, {})) == NOTHING_LEARNED


def test_the_form_that_has_mixing_alone_is_read(tmp_path: Path) -> None:
    read = read_learned(stored(tmp_path, {"mixing": MIXING}))
    assert read.mixing == Mixing(k=10, retrieval_weight=1, rerank_weight=2)
    assert (read.score_mixings, read.calibration) == (ScoreMixings(), None)


@pytest.mark.parametrize(
    "calibration",
    [None, Platt(scale=0.5, bias=-1), Isotonic(scores=(-2.0, 0.0, 3.0), probabilities=(0.1, 0.1, 0.9))],
    ids=["none", "platt", "isotonic"],
)
def test_what_is_written_is_read_and_leaves_no_other_file(tmp_path: Path, calibration: Platt | Isotonic | None) -> None:
    learned = Learned(
        mixing=Mixing(k=2, retrieval_weight=0, rerank_weight=1),
        score_mixings=ScoreMixings(hybrid=ScoreMixing(rerank=0.5, dense=-1), lexical=ScoreMixing(rerank_sigmoid=2)),
        calibration=calibration,
        learned={"model_fingerprint": "abc", "depth": 100},
    )
    for _ in range(2):
        write_learned(tmp_path, learned)
    assert read_learned(tmp_path) == learned
    assert read_learned(tmp_path).model_fingerprint == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["winnow.json"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{", ""),
        ("[]", ""),
        ({"version": 3}, "version"),
        ({"mixng": MIXING}, "mixng"),
        ({"mixing": []}, "mixing"),
        ({"mixing": {"k": 10}}, "mixing.retrieval_weight"),
        ({"mixing": MIXING | {"more": 1}}, "mixing.more"),
        ({"mixing": MIXING | {"k": 0.5}}, "mixing.k"),
        ({"mixing": MIXING | {"k": True}}, "mixing.k"),
        ({"mixing": MIXING | {"k": "10"}}, "mixing.k"),
        ({"mixing": MIXING | {"rerank_weight": 0}}, "mixing.rerank_weight"),
        ({"mixing": MIXING | {"retrieval_weight": -1}}, "mixing.retrieval_weight"),
        ('{"mixing": {"k": NaN, "retrieval_weight": 1, "rerank_weight": 1}}', "mixing.k"),
        ('{"mixing": {"k": Infinity, "retrieval_weight": 1, "rerank_weight": 1}}', "mixing.k"),
        ({"score_mixings": {"hybrid": {"dense": 1}}}, "score_mixings.hybrid"),
        ({"score_mixings": {"hybrid": {"rerank": -1}}}, "score_mixings.hybrid.rerank"),
        ({"score_mixings": {"hybrid": {"rerank": 1, "colour": 1}}}, "score_mixings.hybrid.colour"),
        ({"score_mixings": {"sparse": {"rerank": 1}}}, "score_mixings.sparse"),
        ('{"score_mixings": {"dense": {"rerank": 1, "dense": NaN}}}', "score_mixings.dense.dense"),
        ({"calibration": {"scale": 1}}, "calibration"),
        ({"calibration": PLATT | {"scale": 0}}, "calibration.platt.scale"),
        ({"calibration": PLATT | {"method": "magic"}}, "calibration"),
        ({"calibration": ISOTONIC | {"scores": [-2, 0]}}, "calibration.isotonic"),
        ({"calibration": ISOTONIC | {"scores": [-2, 3, 0]}}, "calibration.isotonic"),
        ({"calibration": ISOTONIC | {"probabilities": [0.1, 0.9, 0.5]}}, "calibration.isotonic"),
        ({"calibration": ISOTONIC | {"probabilities": [0.1, 0.9, 1.5]}}, "calibration.isotonic.probabilities.2"),
    ],
    ids=str,
)
def test_a_malformed_file_is_one_sentence_that_names_folder_and_field(tmp_path: Path, content: Any, field: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        read_learned(stored(tmp_path, content))
    assert refused.value.reason == "MODEL_UNREADABLE"
    assert str(tmp_path) in refused.value.message
    assert field in refused.value.message
    assert "\n" not in refused.value.message


def test_scores_of_a_sigmoid_are_log_odds_and_others_are_as_they_are() -> None:
    scores = np.array([0.5, 0.731058, 0.0, 1.0], dtype=np.float32)
    assert log_odds(scores, "sigmoid") == pytest.approx([0, 1, -16.118, 16.118], abs=1e-3)
    assert log_odds(scores, "identity") == pytest.approx(scores)


def test_platt_scaling_is_a_line_in_log_odds() -> None:
    calibration = Platt(scale=2, bias=-1)
    expected = 1 / (1 + np.exp(-(2 * np.array([-3.0, 0.0, 1.5]) - 1)))
    assert calibration.probability([-3.0, 0.0, 1.5], "identity") == pytest.approx(expected)
    assert calibration.probability(1 / (1 + np.exp([3.0, 0.0, -1.5])), "sigmoid") == pytest.approx(expected)
    assert Platt(scale=1).probability([0.2, 0.9], "sigmoid") == pytest.approx([0.2, 0.9])
    assert list(calibration.probability([-1e9, 1e9], "identity")) == [0, 1]


def test_an_isotonic_calibration_goes_through_its_knots_and_is_level_beyond_them() -> None:
    calibration = Isotonic(scores=(-2.0, 0.0, 3.0), probabilities=(0.1, 0.5, 0.9))
    assert calibration.probability([-9, -2, 0, 3, 9], "identity") == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])
    between = calibration.probability(np.linspace(-2, 3, 20), "identity")
    assert np.all(np.diff(between) > 0)
