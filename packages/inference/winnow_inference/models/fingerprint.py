"""A model's fingerprint: one hash over everything in its folder that decides its results, and nothing else.

The same model in another folder, under another name, with another README, dtype or engine has the same fingerprint.
Vectors outlive code, so it is taken from the model's files, never from what a library makes of them, and what the
libraries write for themselves (their versions, paths, leftovers of the last training run) is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow_inference.models.weights import module_folders, read_json, sha256_of

SCHEME = "winnow-model-1"
"""Names this way of taking it."""

# File → the keys of it that say nothing of the result.
_IDLE_KEYS: dict[str, frozenset[str]] = {
    "config.json": frozenset({
        "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "gradient_checkpointing",
    }),
    # Truncation and padding are ours; a tokenizer.json carries whatever its last user had set.
    "tokenizer.json": frozenset({"truncation", "padding"}),
    "tokenizer_config.json": frozenset({
        "name_or_path", "backend", "is_local", "local_files_only", "max_length", "model_max_length", "stride",
        "truncation_strategy", "truncation_side", "pad_to_multiple_of", "tokenizer_file", "special_tokens_map_file",
        "transformers_version", "processor_class", "tokenizer_class",
    }),
    "special_tokens_map.json": frozenset(),
    "added_tokens.json": frozenset(),
    # The length that counts is the effective one, which is hashed apart.
    "sentence_bert_config.json": frozenset({"max_seq_length", "model_args", "tokenizer_args", "config_args"}),
    "config_sentence_transformers.json": frozenset({"__version__", "model_type", "requirements"}),
}  # fmt: skip


def fingerprint(folder: Path, *, effective: Mapping[str, Any]) -> str:
    """64 lower-case hex characters for the model in `folder`.

    `effective` holds what is not decided by the files alone, as JSON values: the tokens that are read, the prompts.
    """
    parts: dict[str, str] = {"effective": _canonical(effective)}
    for position, (kind, module) in enumerate(module_folders(folder)):
        parts[f"module/{position}"] = kind
        for name, content in _contents(module).items():
            parts[f"module/{position}/{name}"] = content
    shared = folder / "config_sentence_transformers.json"
    if shared.is_file():
        parts[shared.name] = _without_idle(shared)
    return hashlib.sha256(f"{SCHEME}\n{_canonical(parts)}".encode()).hexdigest()


def _contents(module: Path) -> dict[str, str]:
    """What decides a module's results: its weights by hash, its settings by content."""
    found: dict[str, str] = {}
    for path in module.glob("*.safetensors"):
        found[path.name] = sha256_of(path)
    for name in _IDLE_KEYS:
        if name != "config_sentence_transformers.json" and (module / name).is_file():
            found[name] = _without_idle(module / name)
    return found


def _without_idle(path: Path) -> str:
    idle = _IDLE_KEYS[path.name]
    return _canonical({key: value for key, value in read_json(path).items() if key not in idle})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
