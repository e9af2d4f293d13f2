"""Formulas: scores computed from the prefetches' scores and the payload."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.wire import filters, payloads
from winnow_rpc.faults import InvalidArgument, Unimplemented

_DEEPEST = 32
Reader = Callable[[pb.Expression, str], Any]
"""Reads an expression within another, under the name of its place there."""
_UNARY = {
    "neg": edge.Expression.Neg,
    "abs": edge.Expression.Abs,
    "sqrt": edge.Expression.Sqrt,
    "exp": edge.Expression.Exp,
    "log10": edge.Expression.Log10,
    "ln": edge.Expression.Ln,
    "acosh": edge.Expression.Acosh,
}
_MANY = {
    "mult": edge.Expression.Mult,
    "sum": edge.Expression.Sum,
    "max": edge.Expression.Max,
    "min": edge.Expression.Min,
}
_DECAYS = {
    "exp_decay": edge.DecayKind.Exp,
    "gauss_decay": edge.DecayKind.Gauss,
    "lin_decay": edge.DecayKind.Lin,
}


def from_wire(message: pb.Formula, field: str) -> edge.Formula:
    """The engine's formula. Raises InvalidArgument if an expression is empty or malformed."""
    expression = _expression(message.expression, f"{field}.expression", 0)
    defaults = payloads.from_wire(message.defaults, f"{field}.defaults")
    try:
        return edge.Formula(expression, defaults)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{field}: {error}", field=field, reason="BAD_FORMULA") from error


def _finite(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise InvalidArgument(f"{field} must be finite", field=field, reason="NOT_FINITE")
    return value


def _expression(message: pb.Expression, field: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise InvalidArgument(f"{field}: nested deeper than {_DEEPEST} levels", field=field, reason="TOO_DEEP")
    kind = message.WhichOneof("variant")
    if kind is None:
        raise InvalidArgument(f"{field}: the expression is empty", field=field, reason="BAD_FORMULA")
    inner, path = getattr(message, kind), f"{field}.{kind}"

    def read(each: pb.Expression, name: str) -> Any:
        return _expression(each, f"{path}.{name}", depth + 1)

    if kind in _UNARY:
        return _UNARY[kind](_expression(inner, path, depth + 1))
    if kind in _MANY:
        parts: Sequence[pb.Expression] = getattr(inner, kind)
        return _MANY[kind]([_expression(each, f"{path}[{n}]", depth + 1) for n, each in enumerate(parts)])
    if kind in _DECAYS:
        return edge.Expression.Decay(
            _DECAYS[kind],
            read(inner.x, "x"),
            read(inner.target, "target") if inner.HasField("target") else None,
            _finite(inner.midpoint, f"{path}.midpoint") if inner.HasField("midpoint") else None,
            _finite(inner.scale, f"{path}.scale") if inner.HasField("scale") else None,
        )
    if kind not in _LEAVES:
        raise Unimplemented(f"{path} is not offered by this index", reason="EXPRESSION_NOT_OFFERED")
    return _LEAVES[kind](inner, read, path)


_LEAVES: dict[str, Callable[[Any, Reader, str], Any]] = {
    "constant": lambda inner, read, path: edge.Expression.Constant(_finite(inner, path)),
    "variable": lambda inner, read, path: edge.Expression.Variable(inner),
    "condition": lambda inner, read, path: edge.Expression.Condition(filters.condition_from_wire(inner, path)),
    "geo_distance": lambda inner, read, path: edge.Expression.GeoDistance(
        filters.geo_point(inner.origin, f"{path}.origin"), filters.checked_key(inner.to, f"{path}.to")
    ),
    "datetime": lambda inner, read, path: edge.Expression.Datetime(inner),
    "datetime_key": lambda inner, read, path: edge.Expression.DatetimeKey(filters.checked_key(inner, path)),
    "div": lambda inner, read, path: edge.Expression.Div(
        read(inner.left, "left"),
        read(inner.right, "right"),
        _finite(inner.by_zero_default, path) if inner.HasField("by_zero_default") else None,
    ),
    "pow": lambda inner, read, path: edge.Expression.Pow(read(inner.base, "base"), read(inner.exponent, "exponent")),
}
