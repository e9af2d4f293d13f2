"""Leaves out of a graph what nobody reads: where a model looks at its first token alone, its last layer is computed for
that token alone.

A cross-encoder's head, like the pooling of many bi-encoders, takes the first token's state. In the last layer the other
tokens are looked at (as keys and values), but what becomes of them there is thrown away: queries, what attention gives,
and the feed-forward part, five sixths of the layer's arithmetic. The `Gather` that takes the token is moved to before
them. Results are the same numbers, rounding aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_ELEMENTWISE = {
    *("Add", "Subtract", "Multiply", "Divide", "Power", "Maximum", "Minimum", "SquaredDifference"),
    *("Gelu", "Tanh", "Relu", "Sigmoid", "Swish", "Erf", "Exp", "Sqrt", "Convert", "HSwish", "SoftPlus", "Mish"),
}

Needed = Iterator[tuple[int, int]]
"""Inputs of a node of which one token is enough: the input's number, the axis of its tokens."""


def narrow_to_first_token(model: Any) -> set[str]:
    """Moves, in an `openvino.Model`, each selection of the first token as far up as it goes. Gives the names of the
    nodes that are computed for one token from then on; none of them: the model is as it was."""
    narrowed: set[str] = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather" and _takes_first_of(node, axis=1):
            narrowed |= _narrow_above(node.input(0), axis=1)
    if narrowed:
        model.validate_nodes_and_infer_types()
    return narrowed


def keep_in_float32(file: Path, names: Set[str]) -> None:
    """Marks nodes of a saved model, so that they are computed in float32 also where the rest is in bfloat16.

    Matrix products take no notice of it; what adds, scales and normalises between them does. OpenVINO's Python can read
    such a mark but not make one, so it is written into the file.
    """
    tree = ElementTree.parse(file)  # noqa: S314 written by us a moment ago
    for layer in tree.iterfind("layers/layer"):
        if layer.get("name") in names:
            marks = layer.find("rt_info")
            if marks is None:
                marks = ElementTree.Element("rt_info")
                layer.insert(1 if layer.find("data") is not None else 0, marks)
            ElementTree.SubElement(marks, "attribute", name="precise", version="0")
    tree.write(file, encoding="utf-8", xml_declaration=True)


def _narrow_above(reader: Any, *, axis: int) -> set[str]:
    """From this input upwards: a node is computed for one token when all that read it need no more."""
    enough = {_place(reader): axis}
    waiting = [(reader, axis)]
    narrowed: set[str] = set()
    progress = True
    while progress:
        progress = False
        for given, at in list(waiting):
            source = given.get_source_output()
            node = source.get_node()
            if node.get_friendly_name() in narrowed:
                waiting.remove((given, at))
                continue
            if any(enough.get(_place(each)) != at for each in source.get_target_inputs()):
                continue
            inputs = _inputs_that_follow(node, at)
            if inputs is None:
                continue
            narrowed.add(node.get_friendly_name())
            waiting.remove((given, at))
            for number, input_axis in inputs:
                above = node.input(number)
                enough[_place(above)] = input_axis
                waiting.append((above, input_axis))
            progress = True
    if narrowed:
        _cut(waiting)
    return narrowed


def _cut(edges: list[tuple[Any, int]]) -> None:
    """The first token of what is still computed for all, where only that is read."""
    firsts: dict[tuple[str, int, int], Any] = {}
    for given, axis in edges:
        source = given.get_source_output()
        key = (source.get_node().get_friendly_name(), source.get_index(), axis)
        if key not in firsts:
            firsts[key] = _first_of(source, axis)
        given.replace_source_output(firsts[key])


def _inputs_that_follow(node: Any, axis: int) -> list[tuple[int, int]] | None:
    """Which inputs of a node need one token, if one token along `axis` is wanted of it; None if it needs them all."""
    kind = node.get_type_name()
    rules: dict[str, Callable[[Any, int], Needed | None]] = {
        "MVN": _of_normalisation,
        "Softmax": _of_softmax,
        "MatMul": _of_product,
        "Reshape": _of_reshape,
        "Transpose": _of_transpose,
        "ScaledDotProductAttention": _of_attention,
    }
    rule = _of_elementwise if kind in _ELEMENTWISE else rules.get(kind)
    found = rule(node, axis) if rule else None
    return None if found is None else list(found)


def _of_elementwise(node: Any, axis: int) -> Needed | None:
    from_end = _rank(node.output(0)) - axis
    return ((number, at) for number in range(node.get_input_size()) for at in _broadcast_axis(node, number, from_end))


def _broadcast_axis(node: Any, number: int, from_end: int) -> Iterator[int]:
    """The axis of an input that is the output's `from_end`-th from the end, if it is there and longer than one."""
    shape = node.input_value(number).get_partial_shape()
    axis = len(shape) - from_end
    if axis >= 0 and not (shape[axis].is_static and shape[axis].get_length() == 1):
        yield axis


def _of_normalisation(node: Any, axis: int) -> Needed | None:
    axes = _constant(node, 1)
    rank = _rank(node.input_value(0))
    if axes is None or any(each % rank == axis for each in axes):
        return None
    return iter([(0, axis)])


def _of_softmax(node: Any, axis: int) -> Needed | None:
    along = int(node.get_attributes()["axis"]) % _rank(node.output(0))
    return None if along == axis else iter([(0, axis)])


def _of_product(node: Any, axis: int) -> Needed | None:
    """Rows of a matrix product depend on the same rows of the left factor, and on all of the right one."""
    attributes = node.get_attributes()
    left, right = _rank(node.input_value(0)), _rank(node.input_value(1))
    rank = _rank(node.output(0))
    if attributes["transpose_a"] or left != rank or axis == rank - 1 or (right > 2 and axis != rank - 2):
        return None
    return iter([(0, axis)])


def _of_reshape(node: Any, axis: int) -> Needed | None:
    """Where all axes up to the tokens' stay what they are: 0 in the pattern, or the length that they have anyway."""
    pattern = _constant(node, 1)
    before = node.input_value(0).get_partial_shape()
    if pattern is None or not node.get_attributes()["special_zero"] or min(len(pattern), len(before)) <= axis:
        return None
    kept = all(
        wanted == 0 or (length.is_static and length.get_length() == wanted)
        for wanted, length in zip(pattern[:axis], list(before)[:axis], strict=True)
    )
    return iter([(0, axis)]) if kept and pattern[axis] == 0 else None


def _of_transpose(node: Any, axis: int) -> Needed | None:
    order = _constant(node, 1)
    return None if order is None else iter([(0, order[axis])])


def _of_attention(node: Any, axis: int) -> Needed | None:
    """Each query by itself; keys and values are needed whole."""
    rank = _rank(node.output(0))
    if node.get_attributes()["causal"] or axis != rank - 2:
        return None
    needed = [(0, axis)]
    if node.get_input_size() > 3:
        needed += [(3, at) for at in _broadcast_axis(node, 3, 2)]
    return iter(needed)


def _takes_first_of(gather: Any, *, axis: int) -> bool:
    return _constant(gather, 1) == [0] and _constant(gather, 2) == [axis]


def _first_of(source: Any, axis: int) -> Any:
    import openvino.opset13 as ops

    def number(value: int) -> Any:
        return ops.constant([value], dtype="int64")

    return ops.slice(source, number(0), number(1), number(1), number(axis)).output(0)


def _place(given: Any) -> tuple[str, int]:
    return given.get_node().get_friendly_name(), given.get_index()


def _rank(output: Any) -> int:
    return len(output.get_partial_shape())


def _constant(node: Any, number: int) -> list[int] | None:
    """The values of an input, if they are fixed."""
    source = node.input_value(number).get_node()
    return [int(each) for each in source.get_data().ravel()] if source.get_type_name() == "Constant" else None
