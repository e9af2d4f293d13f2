"""Looks at a model's files before any heavy library does: are they there, whole, and what they should be?"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from winnow_rpc.faults import FailedPrecondition, NotFound

# The format allows no header above this (https://github.com/huggingface/safetensors, "Format").
_MAX_HEADER_BYTES = 100_000_000


def unreadable(folder: Path, why: str) -> FailedPrecondition:
    """The fault for a folder that is there but does not hold a sound model."""
    return FailedPrecondition(
        f"the model in {folder} cannot be read: {why}", reason="MODEL_UNREADABLE", metadata={"folder": str(folder)}
    )


@contextmanager
def legible(folder: Path) -> Iterator[None]:
    """Within it, a file or folder that this process may not read makes the fault that the model cannot be read."""
    try:
        yield
    except PermissionError as error:
        raise unreadable(folder, _denied(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; raises FailedPrecondition if it is not one."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise unreadable(path.parent, _denied(error)) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise unreadable(path.parent, f"{path.name} is not valid JSON") from error
    if not isinstance(read, dict):
        raise unreadable(path.parent, f"{path.name} is not a JSON object")
    return read


def module_folders(folder: Path) -> list[tuple[str, Path]]:
    """The modules of a sentence-transformers folder in order: (bare class name, its folder).

    A plain transformers folder is one module, a Transformer. Refused: classes that sentence-transformers does not bring
    itself (they would be code of a stranger) and folders outside the model's own.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return [("Transformer", folder)]
    try:
        modules = json.loads(listing.read_text(encoding="utf-8"))
        listed = [(str(m["type"]), str(m["path"])) for m in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(folder, "modules.json is not a list of modules") from error
    for kind, relative in listed:
        if not kind.startswith("sentence_transformers."):
            raise FailedPrecondition(
                f"the model in {folder} needs code of its own ({kind}), which is never run",
                reason="MODEL_NEEDS_CODE",
                metadata={"folder": str(folder), "class": kind},
            )
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise unreadable(folder, "modules.json points outside the folder")
    if not listed:
        raise unreadable(folder, "modules.json lists no module")
    return [(kind.rpartition(".")[2], folder / relative) for kind, relative in listed]


def check_folder(folder: Path) -> list[str]:
    """Checks that a folder holds a model with whole weights and a tokenizer; returns the names of its tensors.

    Raises NotFound if there is no model in it at all, FailedPrecondition if there is one that cannot be read.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no model folder {folder}", reason="MODEL_NOT_FOUND", metadata={"folder": str(folder)})
    kind, transformer = module_folders(folder)[0]
    if kind != "Transformer":
        raise FailedPrecondition(
            f"the model in {folder} begins with a {kind}; only models that begin with a Transformer can be served",
            reason="MODEL_NOT_SUPPORTED",
            metadata={"folder": str(folder)},
        )
    if not (transformer / "config.json").is_file():
        raise NotFound(
            f"{folder} is not a model folder: it has no config.json",
            reason="MODEL_NOT_FOUND",
            metadata={"folder": str(folder)},
        )
    read_json(transformer / "config.json")
    if not (transformer / "tokenizer.json").is_file():
        raise unreadable(folder, "it has no tokenizer.json (a fast tokenizer is needed)")
    read_json(transformer / "tokenizer.json")
    files = sorted(transformer.glob("*.safetensors"))
    if not files:
        raise unreadable(folder, "it has no weights in the safetensors format")
    _check_shards(folder, transformer, files)
    return [name for path in files for name in _tensor_names(folder, path)]


def _check_shards(folder: Path, transformer: Path, files: list[Path]) -> None:
    index = transformer / "model.safetensors.index.json"
    if not index.is_file():
        return
    named = read_json(index).get("weight_map", {})
    missing = (
        {str(name) for name in named.values()} - {path.name for path in files} if isinstance(named, dict) else {"?"}
    )
    if missing:
        raise unreadable(folder, f"{min(missing)} is missing")


def _tensor_names(folder: Path, path: Path) -> list[str]:
    """Names of the tensors of a safetensors file, whose sizes must add up to the file's."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
            raise unreadable(folder, f"{path.name} is cut off or not a safetensors file")
        try:
            header = json.loads(file.read(length))
            names = [name for name in header if name != "__metadata__"]
            end = max((header[name]["data_offsets"][1] for name in names), default=0)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise unreadable(folder, f"{path.name} is not a safetensors file") from error
    if size != 8 + length + end:
        raise unreadable(folder, f"{path.name} is cut off: {size:,} bytes of {8 + length + end:,}")
    return names


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(folder: Path, expected: str) -> None:
    """Raises FailedPrecondition unless `model.safetensors` hashes to `expected`."""
    found = sha256_of(folder / "model.safetensors")
    if found != expected:
        raise FailedPrecondition(
            f"the weights in {folder} are not the ones this version of Winnow expects (sha256 {found}, not {expected})",
            reason="MODEL_NOT_GENUINE",
            metadata={"folder": str(folder), "sha256": found, "expected": expected},
        )


def _denied(error: PermissionError) -> str:
    return f"{error.filename} may not be read by user {os.geteuid()}"
