"""From one kind of data to another, and to parts of it."""

from __future__ import annotations

import pytest

from winnow_lab.data.beir import JudgedQuery
from winnow_lab.data.converting import as_judged_set, groups_of, triplets_of
from winnow_lab.data.examples import (
    Data,
    Group,
    Groups,
    JudgedSet,
    ScoredPair,
    ScoredPairs,
    Triplet,
    Triplets,
    count_of,
)
from winnow_lab.data.splitting import hold_out, sample, sample_documents
from winnow_rpc.faults import InvalidArgument

JUDGED = JudgedSet(
    source="set",
    documents={"d1": "bread", "d2": "cheese", "d3": "sea"},
    queries=[JudgedQuery("q1", "what is bread", {"d1": 2.0, "d2": 1.0, "d3": 0.0})],
)


def test_groups_of_a_judged_set_have_answers_first_then_what_is_no_answer_then_what_was_mined() -> None:
    assert groups_of(JUDGED, {"q1": ["river", "bread"]}) == [
        Group("what is bread", ("bread", "cheese", "sea", "river"), (1.0, 0.5, 0.0, 0.0))
    ]


def test_a_group_has_no_more_answers_than_asked_for() -> None:
    [group] = groups_of(JUDGED, {"q1": ["river"]}, most_answers=1)
    assert group.documents == ("bread", "sea", "river")


def test_a_query_without_anything_to_order_makes_no_group() -> None:
    only = JudgedSet(source="", documents={"d1": "bread"}, queries=[JudgedQuery("q1", "?", {"d1": 1.0})])
    assert groups_of(only) == []


def test_triplets_of_a_judged_set_are_one_for_each_answer() -> None:
    assert triplets_of(JUDGED, {"q1": ["river"]}) == [
        Triplet("what is bread", "bread", ("river",)),
        Triplet("what is bread", "cheese", ("river",)),
    ]


def test_triplets_of_groups_are_answers_with_the_others_as_negatives() -> None:
    groups = Groups(source="", groups=[Group("q", ("a", "b", "c"), (1.0, 0.0, 0.0))])
    assert triplets_of(groups) == [Triplet("q", "a", ("b", "c"))]


def test_pairs_become_a_judged_set_in_which_a_text_is_one_document() -> None:
    pairs = Triplets(source="", triplets=[Triplet("q", "a"), Triplet("q", "b"), Triplet("r", "a", ("c",))])
    judged = as_judged_set(pairs)
    assert sorted(judged.documents.values()) == ["a", "b", "c"]
    answers = {
        query.text: {judged.documents[id_]: g for id_, g in query.judgements.items()} for query in judged.queries
    }
    assert answers == {"q": {"a": 1.0, "b": 1.0}, "r": {"a": 1.0, "c": 0.0}}


def many(count: int) -> list[Data]:
    return [
        ScoredPairs(source="s", pairs=[ScoredPair(f"{n // 2}", "x", 0.5) for n in range(count)]),
        Triplets(source="t", triplets=[Triplet(f"{n // 2}", "x") for n in range(count)]),
        Groups(source="g", groups=[Group(f"{n // 2}", ("a", "b"), (1.0, 0.0)) for n in range(count)]),
        JudgedSet(
            source="j",
            documents={"d": "x"},
            queries=[JudgedQuery(f"q{n}", f"{n // 2}", {"d": 1.0}) for n in range(count)],
        ),
    ]


def texts(data: Data) -> list[str]:
    match data:
        case ScoredPairs():
            return [pair.sentence1 for pair in data.pairs]
        case Triplets():
            return [triplet.anchor for triplet in data.triplets]
        case Groups():
            return [group.query for group in data.groups]
        case JudgedSet():
            return [query.text for query in data.queries]


@pytest.mark.parametrize("data", many(400), ids=lambda data: type(data).__name__)
def test_no_query_is_both_trained_on_and_held_out(data: Data) -> None:
    left, out = hold_out(data, 0.1)
    assert not set(texts(left)) & set(texts(out))
    assert sorted(texts(left) + texts(out)) == sorted(texts(data))
    assert 10 < count_of(out) < 80
    assert texts(hold_out(data, 0.1)[1]) == texts(out)
    assert texts(hold_out(data, 0.1, seed=1)[1]) != texts(out)


def test_too_few_to_hold_some_out_is_said_with_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match=r"--dev.*--hold-out 0"):
        hold_out(many(2)[0], 0.5)


@pytest.mark.parametrize("data", many(40), ids=lambda data: type(data).__name__)
def test_a_sample_keeps_the_order_and_repeats(data: Data) -> None:
    drawn = sample(data, 10, seed=3)
    assert count_of(drawn) == 10
    assert texts(sample(data, 10, seed=3)) == texts(drawn)
    assert [int(text) for text in texts(drawn)] == sorted(int(text) for text in texts(drawn))
    assert texts(sample(data, 1000)) == texts(data)


def test_a_sample_of_documents_keeps_all_that_were_judged() -> None:
    judged = JudgedSet(
        source="",
        documents={f"d{n}": f"{n}" for n in range(50)},
        queries=[JudgedQuery("q", "?", {"d7": 1.0, "d9": 0.0})],
    )
    kept = sample_documents(judged, 10)
    assert len(kept.documents) == 10
    assert {"d7", "d9"} <= kept.documents.keys()
