"""What a request must be before any work goes into it. Pure functions; each names the field and the limit."""

from __future__ import annotations

from collections.abc import Sequence

from winnow_rpc.faults import FailedPrecondition, FieldViolation, InvalidArgument

# A request of nothing but mistakes should not get an answer longer than itself.
_NAMED_VIOLATIONS = 20


def check_texts(
    texts: Sequence[str], *, max_count: int, max_bytes: int, field: str = "texts", may_be_blank: bool = False
) -> None:
    """Raises InvalidArgument unless there are 1 to `max_count` texts, each with something to read, none too long."""
    if not texts:
        raise InvalidArgument(f"{field} is empty; 1 to {max_count:,} texts are needed", field=field, reason="NO_TEXTS")
    if len(texts) > max_count:
        raise InvalidArgument(
            f"{field} holds {len(texts):,} texts; at most {max_count:,} go into one request",
            field=field,
            reason="TOO_MANY_TEXTS",
            metadata={"count": str(len(texts)), "limit": str(max_count)},
        )
    violations: list[FieldViolation] = []
    for index, text in enumerate(texts):
        if not may_be_blank and not text.strip():
            violations.append(FieldViolation(f"{field}[{index}]", "is empty or nothing but white space"))
        # No character takes more than 4 bytes; counting them exactly is for the few that are near the limit.
        elif 4 * len(text) > max_bytes and (size := len(text.encode())) > max_bytes:
            violations.append(
                FieldViolation(f"{field}[{index}]", f"has {size:,} bytes; at most {max_bytes:,} are read")
            )
        if len(violations) == _NAMED_VIOLATIONS:
            break
    if violations:
        first = violations[0]
        raise InvalidArgument(f"{first.field} {first.description}", violations=violations, reason="BAD_TEXT")


def check_dimensions(dimensions: int, *, offered: Sequence[int], full: int) -> None:
    """Raises InvalidArgument unless the model gives vectors of that many components; 0 and `full` are whole ones."""
    if dimensions in (0, full) or dimensions in offered:
        return
    shorter = f"{', '.join(map(str, offered))} and {full}" if offered else f"{full} alone"
    raise InvalidArgument(
        f"options.dimensions is {dimensions}; this model gives {shorter}",
        field="options.dimensions",
        reason="DIMENSIONS_NOT_OFFERED",
        metadata={"dimensions": str(dimensions), "dimension": str(full)},
    )


def check_fingerprint(expected: str, *, loaded: str) -> None:
    """Raises FailedPrecondition that names both if the caller expects another model than the loaded one."""
    if expected and expected != loaded:
        raise FailedPrecondition(
            f"the request expects model {expected}, but {loaded} is loaded",
            reason="MODEL_MISMATCH",
            metadata={"expected": expected, "loaded": loaded},
        )
