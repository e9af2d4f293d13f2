"""From examples to the columns that a loss of sentence-transformers reads. Pure.

Their names mean nothing to a loss, their order does: texts first, in the order that the loss wants, the label last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from winnow_lab.data.examples import Group, ScoredPair, Triplet
from winnow_lab.training.settings import Loss
from winnow_rpc.faults import InvalidArgument

Columns = dict[str, list[Any]]
"""Name → values, one for each example."""

Examples = Sequence[ScoredPair] | Sequence[Triplet] | Sequence[Group]
"""Examples of one type."""


def columns_for(loss: Loss, examples: Examples, *, sharpness: float = 1.0) -> Columns:
    """The columns for a loss. Raises InvalidArgument if the examples do not fit it, or there are none."""
    if not examples:
        raise InvalidArgument("there is no example to train on")
    if loss is Loss.COSINE or (loss is Loss.BCE and isinstance(examples[0], ScoredPair)):
        return _scored(_all(examples, ScoredPair, loss))
    if loss in (Loss.MNR, Loss.CACHED_MNR):
        return _contrasted(_all(examples, Triplet, loss))
    groups = _all(examples, Group, loss)
    match loss:
        case Loss.BCE:
            return _flat(groups)
        case Loss.MARGIN_MSE:
            return _margins(groups)
        case Loss.LAMBDA:
            _check_labels(groups, high=math.inf, why="the loss lambda takes labels as grades")
            return _listed(groups, 1.0)
        case _:
            return _listed(groups, sharpness)


def _all(examples: Examples, kind: type[Any], loss: Loss) -> list[Any]:
    if not all(isinstance(example, kind) for example in examples):
        raise InvalidArgument(f"the loss {loss} trains on {kind.__name__}s, not on {type(examples[0]).__name__}s")
    return list(examples)


def _scored(pairs: Sequence[ScoredPair]) -> Columns:
    return {
        "sentence1": [pair.sentence1 for pair in pairs],
        "sentence2": [pair.sentence2 for pair in pairs],
        "label": [pair.score for pair in pairs],
    }


def _contrasted(triplets: Sequence[Triplet]) -> Columns:
    # All columns must be of one length, so the fewest negatives that any has.
    negatives = min(len(triplet.negatives) for triplet in triplets)
    columns: Columns = {
        "anchor": [triplet.anchor for triplet in triplets],
        "positive": [triplet.positive for triplet in triplets],
    }
    for at in range(negatives):
        columns[f"negative_{at + 1}"] = [triplet.negatives[at] for triplet in triplets]
    return columns


def _flat(groups: Sequence[Group]) -> Columns:
    _check_labels(groups, high=1.0, why="the loss bce takes labels as probabilities")
    rows = [(group.query, text, label) for group in groups for text, label in _documents(group)]
    if len({label for _, _, label in rows}) == 1:
        raise InvalidArgument("all labels are the same, so there is nothing to learn")
    return _named(("query", "document", "label"), rows)


def _listed(groups: Sequence[Group], sharpness: float) -> Columns:
    return _named(
        ("query", "documents", "labels"),
        ((group.query, list(group.documents), [label * sharpness for label in group.labels]) for group in groups),
    )


def _margins(groups: Sequence[Group]) -> Columns:
    """The best document of each group against each other one, with the difference of their labels."""
    rows = []
    for group in groups:
        best = max(range(len(group.labels)), key=group.labels.__getitem__)
        rows += [
            (group.query, group.documents[best], text, group.labels[best] - label)
            for at, (text, label) in enumerate(_documents(group))
            if at != best
        ]
    return _named(("query", "positive", "negative", "label"), rows)


def _documents(group: Group) -> Iterable[tuple[str, float]]:
    return zip(group.documents, group.labels, strict=True)


def _named(names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Columns:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _check_labels(groups: Sequence[Group], *, high: float, why: str) -> None:
    for group in groups:
        for label in group.labels:
            if not 0 <= label <= high:
                limits = "0 to 1" if high == 1.0 else "0 or more"
                raise InvalidArgument(
                    f"{why}, {limits}, but one of the query {group.query[:60]!r} is {label:g}; a teacher's scores are "
                    f"for margin-mse or listnet"
                )
