"""Our filters as Qdrant's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from qdrant_client import models

from winnow_gateway.documents import point_id
from winnow_gateway.filters import Condition, Exists, Filter, HasId, Match, Range, TimeRange

_PLAIN = re.compile(r"[\w-]+")

METADATA = "metadata"
"""The payload key under which a document's metadata lies."""


def qdrant_filter(filter_: Filter) -> models.Filter | None:
    """The same filter in Qdrant's terms; None if it lets everything pass."""
    if filter_.empty:
        return None
    return models.Filter(
        must=_conditions(filter_.must), should=_conditions(filter_.should), must_not=_conditions(filter_.must_not)
    )


def metadata_key(key: str) -> str:
    """The payload path of a metadata field. What is more than letters, digits, _ and - stands in quotes there."""
    parts = (part if _PLAIN.fullmatch(part) else f'"{part}"' for part in key.split("."))
    return ".".join((METADATA, *parts))


def _conditions(conditions: Sequence[Condition]) -> list[models.Condition] | None:
    return [_condition(condition) for condition in conditions] or None


def _condition(condition: Condition) -> models.Condition:
    match condition:
        case Match(key=key, any_of=values):
            return _match(key, values)
        case Range(key=key):
            bounds = models.Range(
                gte=condition.at_least, gt=condition.more_than, lte=condition.at_most, lt=condition.less_than
            )
            return models.FieldCondition(key=metadata_key(key), range=bounds)
        case TimeRange(key=key, start=start, end=end):
            return models.FieldCondition(key=metadata_key(key), range=models.DatetimeRange(gte=start, lt=end))
        case Exists(key=key):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=metadata_key(key)))
            return models.Filter(must_not=[empty])
        case HasId(ids=ids):
            return models.HasIdCondition(has_id=[point_id(id_) for id_ in ids])
        case Filter():
            return qdrant_filter(condition) or models.Filter()


def _match(key: str, values: Sequence[str | int | bool]) -> models.Condition:
    path = metadata_key(key)
    # Qdrant takes lists of strings and lists of whole numbers, but not of booleans.
    if not isinstance(values[0], bool) and len(values) > 1:
        return models.FieldCondition(key=path, match=models.MatchAny(any=cast("list[str] | list[int]", list(values))))
    wanted = [models.FieldCondition(key=path, match=models.MatchValue(value=value)) for value in values]
    return wanted[0] if len(wanted) == 1 else models.Filter(should=list(wanted))
