"""Which passages become negatives."""

from __future__ import annotations

import random

import numpy as np

from winnow_lab.training.mining import MiningSettings, choose_negatives, dense_neighbours, lexical_neighbours


def choose(settings: MiningSettings, **changed: object) -> list[int]:
    given = {
        "dense": [4, 5, 6, 7, 0, 1],
        "cosines": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        "answer_cosine": 0.8,
        "lexical": [8, 5, 9, 10, 11, 12],
        "settings": settings,
        "draw": random.Random(0),
    }
    return choose_negatives({5}, **(given | changed))  # type: ignore[arg-type]


def test_neighbours_by_vectors_are_those_of_a_full_sort() -> None:
    draw = np.random.default_rng(0)
    queries, passages = (draw.normal(size=(n, 8)).astype(np.float32) for n in (600, 40))
    ranks, cosines = dense_neighbours(queries, passages, depth=7)
    whole = queries @ passages.T
    assert (ranks == np.argsort(-whole, axis=1, kind="stable")[:, :7]).all()
    assert np.allclose(cosines, np.take_along_axis(whole, ranks, axis=1), atol=1e-5)


def test_neighbours_by_words_share_words_and_no_more_are_found_than_there_are() -> None:
    passages = ["green tea is steeped", "the river runs to the sea", "tea leaves", "bread and cheese"]
    ranks = lexical_neighbours(["how is green tea steeped", "rivers"], passages, depth=10)
    assert ranks.shape == (2, 4)
    assert ranks[0, :2].tolist() == [0, 2]
    assert ranks[1, 0] == 1, "words are stemmed"


def test_an_answer_is_never_a_negative_and_none_comes_twice() -> None:
    chosen = choose(MiningSettings(count=8, near=3))
    assert 5 not in chosen
    assert len(set(chosen)) == len(chosen) == 8


def test_half_of_the_negatives_are_near_in_one_of_the_orders() -> None:
    for seed in range(20):
        chosen = choose(MiningSettings(count=4, near=2), draw=random.Random(seed))
        assert len(set(chosen) & {4, 8}) == 2, "the nearest but the answer"


def test_what_both_orders_put_ahead_of_the_answer_is_taken_for_another_answer() -> None:
    both = choose(MiningSettings(count=9, near=3), lexical=[4, 5, 9, 10, 11, 12])
    assert 4 not in both
    by_words_alone = choose(MiningSettings(count=9, near=3))
    assert 8 in by_words_alone


def test_fewer_passages_give_fewer_negatives() -> None:
    assert sorted(choose(MiningSettings(count=9), dense=[5, 1], cosines=[0.9, 0.1], lexical=[5, 2])) == [1, 2]
