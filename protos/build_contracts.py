"""Generates Python from the contracts while the wheel is built; nothing generated is ever committed.

Also a program: `python build_contracts.py FOLDER` generates into a folder, which is how `make check` finds out whether
the installed contracts are those of the .proto files.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTO_ROOT = Path(__file__).resolve().parent


class ContractsBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the generated modules to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates into a temporary folder and asks hatchling to include what is there."""
        self._folder = tempfile.TemporaryDirectory(prefix="winnow-protos-")
        generated = Path(self._folder.name)
        generate(generated)
        for path in sorted(generated.rglob("*")):
            if path.is_file():
                build_data["force_include"][str(path)] = str(path.relative_to(generated))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the temporary folder."""
        self._folder.cleanup()


def generate(target: Path) -> None:
    """Writes messages, service stubs and their types for every contract into `target`.

    Raises RuntimeError if the compiler refuses a contract; its own message is on stderr by then.
    """
    target.mkdir(parents=True, exist_ok=True)
    plugins = [f"--plugin={name}={_script(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{target}" for kind in ("mypy", "mypy_grpc")]
    _protoc(*plugins, *outputs)
    # `winnow` and its services are namespace packages: several distributions may add to them, so none gets an
    # __init__.py. The marker tells type checkers that each version package is typed.
    for package in {path.parent for path in target.glob("winnow/**/*_pb2.py")}:
        (package / "py.typed").touch()


def compile_contracts(target: Path) -> FileDescriptorSet:
    """The compiled contracts with their comments, written to `target` on the way."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    _protoc(f"--descriptor_set_out={target}", "--include_source_info", "--include_imports")
    return FileDescriptorSet.FromString(target.read_bytes())


def _script(name: str) -> str:
    """Where a plugin is: beside this interpreter, or on the PATH, as where pip isolates builds."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; it comes with mypy-protobuf")
    return found


def _protoc(*arguments: str) -> None:
    from grpc_tools import protoc

    protos = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.glob("winnow/**/*.proto"))
    includes = [PROTO_ROOT, resources.files("grpc_tools") / "_proto", _folder_of_google_rpc()]
    status = protoc.main(["protoc", *(f"-I{path}" for path in includes), *arguments, *protos])
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


def _folder_of_google_rpc() -> Path:
    import google.rpc

    return Path(next(iter(google.rpc.__path__))).parents[1]


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
