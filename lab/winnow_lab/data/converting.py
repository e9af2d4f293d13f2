"""From one kind of data to another that says the same. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from winnow_lab.data.beir import JudgedQuery
from winnow_lab.data.examples import Group, Groups, JudgedSet, Triplet, Triplets

Negatives = Mapping[str, Sequence[str]]
"""Id of a query → texts that do not answer it."""


def as_judged_set(data: Triplets | Groups | JudgedSet) -> JudgedSet:
    """The same as a retrieval set: each text is a document once, and what a query's label above 0 is on answers it."""
    if isinstance(data, JudgedSet):
        return data
    ids: dict[str, str] = {}
    grades: dict[str, dict[str, float]] = {}
    for query, text, grade in _judgements(data):
        id_ = ids.setdefault(text, str(len(ids)))
        judged = grades.setdefault(query, {})
        judged[id_] = max(grade, judged.get(id_, 0.0))
    queries = [JudgedQuery(f"q{at}", query, judged) for at, (query, judged) in enumerate(grades.items())]
    return JudgedSet(
        source=data.source,
        documents={id_: text for text, id_ in ids.items()},
        queries=[query for query in queries if query.answered],
    )


def _judgements(data: Triplets | Groups) -> Iterator[tuple[str, str, float]]:
    if isinstance(data, Groups):
        for group in data.groups:
            for text, label in zip(group.documents, group.labels, strict=True):
                yield group.query, text, max(label, 0.0)
    else:
        for triplet in data.triplets:
            yield triplet.anchor, triplet.positive, 1.0
            for text in triplet.negatives:
                yield triplet.anchor, text, 0.0


def triplets_of(data: Triplets | Groups | JudgedSet, negatives: Negatives | None = None) -> list[Triplet]:
    """What a bi-encoder learns from: a query and each of its answers, with its negatives."""
    if isinstance(data, Triplets) and negatives is None:
        return list(data.triplets)
    if isinstance(data, Groups):
        return [
            Triplet(group.query, text, tuple(other for other, of in _pairs(group) if of <= 0))
            for group in data.groups
            for text, label in _pairs(group)
            if label > 0
        ]
    judged = as_judged_set(data)
    return [
        Triplet(query.text, judged.documents[id_], tuple((negatives or {}).get(query.id, ())))
        for query in judged.queries
        for id_, grade in query.judgements.items()
        if grade > 0
    ]


def groups_of(
    data: Triplets | Groups | JudgedSet, negatives: Negatives | None = None, *, most_answers: int = 8
) -> list[Group]:
    """What a cross-encoder learns from: a query, its answers (at most so many, the best first), and its negatives.

    A label is the grade's share of the best grade of the whole set, so that it is from 0 to 1.
    """
    if isinstance(data, Groups):
        return list(data.groups)
    judged = as_judged_set(data)
    best = max((grade for query in judged.queries for grade in query.judgements.values()), default=1.0)
    groups = []
    for query in judged.queries:
        ordered = sorted(query.judgements.items(), key=lambda item: -item[1])
        answers = [(judged.documents[id_], grade / best) for id_, grade in ordered if grade > 0][:most_answers]
        known = [(judged.documents[id_], 0.0) for id_, grade in ordered if grade <= 0]
        mined = [(text, 0.0) for text in (negatives or {}).get(query.id, ())]
        labels: dict[str, float] = {}
        for text, label in (*answers, *known, *mined):
            # Two documents may have one text; the better label holds.
            labels.setdefault(text, label)
        group = Group(query.text, tuple(labels), tuple(labels.values()))
        if group.orders:
            groups.append(group)
    return groups


def _pairs(group: Group) -> list[tuple[str, float]]:
    return list(zip(group.documents, group.labels, strict=True))
