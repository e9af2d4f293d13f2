"""What a request must be before any work goes into it. Pure functions; each names the field and the limit."""

from __future__ import annotations

from collections.abc import Sequence

from winnow_rpc.faults import FailedPrecondition, FieldViolation, InvalidArgument

# A request of nothing but mistakes should not get an answer longer than itself.
_NAMED_VIOLATIONS = 20


def check_query(query: str, *, max_bytes: int) -> None:
    """Raises InvalidArgument unless the query has something to read and is not too long."""
    if not query.strip():
        raise InvalidArgument("query is empty or nothing but white space", field="query", reason="BAD_TEXT")
    if violation := _too_long("query", query, max_bytes):
        raise InvalidArgument(f"query {violation.description}", violations=[violation], reason="BAD_TEXT")


def check_count(count: int, *, limit: int, field: str) -> None:
    """Raises InvalidArgument unless there are 1 to `limit` of them."""
    if not count:
        raise InvalidArgument(f"{field} is empty; 1 to {limit:,} are needed", field=field, reason="NOTHING_TO_SCORE")
    if count > limit:
        raise InvalidArgument(
            f"{field} holds {count:,}; at most {limit:,} go into one request",
            field=field,
            reason="TOO_MANY_TO_SCORE",
            metadata={"count": str(count), "limit": str(limit)},
        )


def check_sizes(texts: Sequence[tuple[str, str]], *, max_bytes: int) -> None:
    """Raises InvalidArgument if any of (field, text) is longer than `max_bytes` of UTF-8. Empty texts are allowed."""
    violations: list[FieldViolation] = []
    for field, text in texts:
        if violation := _too_long(field, text, max_bytes):
            violations.append(violation)
            if len(violations) == _NAMED_VIOLATIONS:
                break
    if violations:
        first = violations[0]
        raise InvalidArgument(f"{first.field} {first.description}", violations=violations, reason="BAD_TEXT")


def check_top_count(top_count: int) -> None:
    """Raises InvalidArgument if fewer than no documents are asked for."""
    if top_count < 0:
        raise InvalidArgument(
            f"top_count is {top_count}; it must be 0 (all) or more", field="top_count", reason="BAD_TOP_COUNT"
        )


def check_can_rerank(labels: Sequence[str]) -> None:
    """Raises FailedPrecondition if the model has several outputs: none of them is the relevance."""
    if len(labels) != 1:
        raise FailedPrecondition(
            f"the loaded model has {len(labels)} labels; only a model with one can rerank (ScorePairs gives them all)",
            reason="MODEL_CANNOT_RERANK",
            metadata={"labels": ", ".join(labels)},
        )


def check_fingerprint(expected: str, *, loaded: str) -> None:
    """Raises FailedPrecondition that names both if the caller expects another model than the loaded one."""
    if expected and expected != loaded:
        raise FailedPrecondition(
            f"the request expects model {expected}, but {loaded} is loaded",
            reason="MODEL_MISMATCH",
            metadata={"expected": expected, "loaded": loaded},
        )


def _too_long(field: str, text: str, max_bytes: int) -> FieldViolation | None:
    # No character takes more than 4 bytes; counting them exactly is for the few that are near the limit.
    if 4 * len(text) > max_bytes and (size := len(text.encode())) > max_bytes:
        return FieldViolation(field, f"has {size:,} bytes; at most {max_bytes:,} are read")
    return None
