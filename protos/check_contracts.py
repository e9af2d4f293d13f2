"""Checks the contracts: the house's rules for .proto files, and that the installed code is generated from them.

The rules are those of Buf's STANDARD and COMMENTS sets that matter here, and a few of our own; they are checked over
the compiled descriptors, so no tool beyond the compiler is needed.
"""

from __future__ import annotations

import filecmp
import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from build_contracts import PROTO_ROOT, compile_contracts, generate
from google.protobuf import descriptor_pb2

_UNSIGNED = {
    descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    descriptor_pb2.FieldDescriptorProto.TYPE_FIXED32,
    descriptor_pb2.FieldDescriptorProto.TYPE_FIXED64,
}
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL = re.compile(r"([A-Z][a-z0-9]*)+")


def complaints(files: descriptor_pb2.FileDescriptorSet) -> Iterator[str]:
    """What breaks a rule, a sentence each."""
    methods: list[tuple[str, descriptor_pb2.MethodDescriptorProto]] = []
    messages: dict[str, descriptor_pb2.DescriptorProto] = {}
    for file in files.file:
        if not file.name.startswith("winnow/"):
            continue
        if file.package != str(Path(file.name).parent).replace("/", "."):
            yield f"{file.name}: package {file.package} is not its folder"
        for imported in file.dependency:
            if imported.startswith("winnow/") and Path(imported).parent != Path(file.name).parent:
                yield f"{file.name}: imports {imported} of another package"
        yield from _uncommented(file)
        for message in file.message_type:
            messages[f".{file.package}.{message.name}"] = message
            yield from _check_message(file.name, message)
        for enum in file.enum_type:
            yield from _check_enum(file.name, enum)
        for service in file.service:
            if not service.name.endswith("Service"):
                yield f"{file.name}: service {service.name} does not end in Service"
            methods += [(file.package, method) for method in service.method]
    yield from _check_methods(methods, messages)


def _check_message(file: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    if not _PASCAL.fullmatch(message.name):
        yield f"{file}: message {message.name} is not in PascalCase"
    if message.enum_type:
        yield f"{file}: message {message.name} holds an enum; enums stand at package level"
    for field in message.field:
        where = f"{file}: field {message.name}.{field.name}"
        if not _SNAKE.fullmatch(field.name):
            yield f"{where} is not in snake_case"
        if field.type in _UNSIGNED:
            yield f"{where} is unsigned"


def _check_enum(file: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[str]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    if enum.value[0].number != 0 or enum.value[0].name != f"{prefix}UNSPECIFIED":
        yield f"{file}: the zero of enum {enum.name} is not {prefix}UNSPECIFIED"
    for value in enum.value:
        if not value.name.startswith(prefix):
            yield f"{file}: value {value.name} of enum {enum.name} does not start with {prefix}"


def _check_methods(
    methods: list[tuple[str, descriptor_pb2.MethodDescriptorProto]], messages: dict[str, descriptor_pb2.DescriptorProto]
) -> Iterator[str]:
    for package, method in methods:
        for actual, suffix in ((method.input_type, "Request"), (method.output_type, "Response")):
            if actual != f".{package}.{method.name}{suffix}":
                yield f"{package}: {method.name} takes or gives {actual}, not its own {method.name}{suffix}"
        if method.name.startswith("List"):
            asked = {field.name for field in messages[method.input_type].field}
            given = {field.name for field in messages[method.output_type].field}
            if not {"page_size", "page_token"} <= asked or "next_page_token" not in given:
                yield f"{package}: {method.name} does not page"


def _uncommented(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}

    def check(path: tuple[int, ...], name: str) -> Iterator[str]:
        if path not in commented:
            yield f"{file.name}: {name} has no comment"

    # Field numbers of the descriptors themselves: messages 4, enums 5, services 6; inside, fields 2, oneofs 8.
    for i, message in enumerate(file.message_type):
        yield from check((4, i), message.name)
        optional = {field.oneof_index for field in message.field if field.proto3_optional}
        for j, field in enumerate(message.field):
            yield from check((4, i, 2, j), f"{message.name}.{field.name}")
        for j, oneof in enumerate(message.oneof_decl):
            if j not in optional:
                yield from check((4, i, 8, j), f"{message.name}.{oneof.name}")
    for i, enum in enumerate(file.enum_type):
        yield from check((5, i), enum.name)
        for j, value in enumerate(enum.value):
            yield from check((5, i, 2, j), value.name)
    for i, service in enumerate(file.service):
        yield from check((6, i), service.name)
        for j, method in enumerate(service.method):
            yield from check((6, i, 2, j), f"{service.name}.{method.name}")


def stale(fresh: Path) -> Iterator[str]:
    """Generated files that differ between a fresh generation and what is installed."""
    generate(fresh)
    installed = {
        str(file): Path(str(file.locate())) for file in importlib.metadata.distribution("winnow-protos").files or ()
    }
    for path in sorted(fresh.rglob("*_pb2*.py*")):
        name = str(path.relative_to(fresh))
        if name not in installed or not filecmp.cmp(path, installed[name], shallow=False):
            yield f"{name}: the installed code is not generated from the contracts as they are; run `make install`"


def main() -> int:
    """Prints what is wrong; exit status 1 if anything is."""
    with tempfile.TemporaryDirectory() as folder:
        found = [*complaints(compile_contracts(Path(folder) / "contracts.binpb")), *stale(Path(folder) / "fresh")]
    for complaint in found:
        print(complaint, file=sys.stderr)  # noqa: T201
    count = len(list(PROTO_ROOT.glob("winnow/**/*.proto")))
    print(f"{count} contracts: {len(found)} complaints")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
