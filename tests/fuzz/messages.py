"""Strategies for protobuf messages, made from their descriptors: a new field is fuzzed without a word here."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

KNOWN_TEXTS = (
    "", "docs", "spare", "no-such", "a", "b", "dense", "bm25", "text", "title", "number", "kind", "metadata.number",
    "the cat sat on the mat", " ", "\x00", "é" * 40, "x" * 300, "*", "a.b[0].c", "2020-01-01T00:00:00Z",
    "00000000-0000-0000-0000-000000000001",
)  # fmt: skip
"""Texts that mean something to a service, and such as have meant trouble elsewhere."""

LIKELY_TEXTS = {
    "collection": "docs", "collection_name": "docs", "name": "docs", "query": "the cat", "text": "the cat",
    "texts": "the cat", "documents": "the cat", "id": "a", "ids": "a", "key": "number", "field": "number",
    "vector_name": "dense", "using": "dense", "field_name": "metadata.number",
}  # fmt: skip
"""Names of fields, and what makes sense in them: most requests hold it, or they would all be refused at the door. What
is not named here is fuzzed all the same."""

_WIDTHS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_OUT_OF_TEN = st.integers(0, 9)
_DEPTH = 5
_MANY = 4
_VECTOR = 16
"""Numbers in a vector of the models and collections that are fuzzed."""


def messages(descriptor: Descriptor, depth: int = _DEPTH) -> st.SearchStrategy[Message]:
    """Messages of this type, whose fields are there or not and hold anything that fits; nested `depth` deep."""
    return _messages(descriptor, depth)


def mangled(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """Bytes that are a message, or were until something was done to them, or never were."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        whole = bytearray(draw(messages(descriptor, 3)).SerializeToString())
        if not whole:
            return draw(st.binary(max_size=64))
        at = draw(st.integers(0, len(whole) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                del whole[at:]
            case 1:
                whole[at] = draw(st.integers(0, 255))
            case 2:
                whole[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                whole += draw(st.binary(min_size=1, max_size=32))
        return bytes(whole)

    return st.one_of(st.binary(max_size=256), damaged())


@cache
def _messages(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
    made = GetMessageClass(descriptor)
    fields = [field for field in descriptor.fields if depth > 0 or field.message_type is None]

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = made()
        seen = set()
        for field in fields:
            wanted = 9 if field.name in LIKELY_TEXTS or len(fields) == 1 else 4
            if draw(_OUT_OF_TEN) >= wanted:
                continue
            # Of alternatives one: a later one would only take the place of the former.
            if field.containing_oneof is not None:
                if field.containing_oneof.name in seen:
                    continue
                seen.add(field.containing_oneof.name)
            _fill(message, field, draw(_values(field, depth)))
        return message

    return build()


def _fill(message: Message, field: FieldDescriptor, value: Any) -> None:
    if _is_map(field):
        target = getattr(message, field.name)
        for key, each in value:
            if isinstance(each, Message):
                target[key].CopyFrom(each)
            else:
                target[key] = each
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.lists(st.tuples(_one(key, depth), _one(value, depth)), max_size=_MANY)
    if field.is_repeated:
        one = _one(field, depth)
        several = st.lists(one, max_size=_MANY)
        if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return st.one_of(several, st.lists(one, min_size=_VECTOR, max_size=_VECTOR))
        return several
    return _one(field, depth)


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _messages(field.message_type, depth - 1)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=80)
        case FieldDescriptor.CPPTYPE_STRING:
            odd = st.one_of(st.sampled_from(KNOWN_TEXTS), st.text(max_size=30))
            likely = LIKELY_TEXTS.get(field.name)
            return _mostly(st.just(likely), odd) if likely else odd
        case FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return _mostly(st.sampled_from(known), st.sampled_from([max(known) + 1, -1, 2**31 - 1]))
        case FieldDescriptor.CPPTYPE_FLOAT:
            return _mostly(st.floats(-1, 1, width=32), st.floats(width=32))
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _mostly(st.floats(0, 10), st.floats())
        case kind:
            least, most = _WIDTHS[kind]
            return _mostly(st.integers(0, 20), st.one_of(st.sampled_from([least, most]), st.integers(least, most)))


def _mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return _OUT_OF_TEN.flatmap(lambda drawn: usual if drawn < 8 else odd)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
