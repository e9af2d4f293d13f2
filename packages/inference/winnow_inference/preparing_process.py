"""Prepares a model in a process of its own, and leaves what it made in the cache.

Converting takes torch and half a gigabyte that a served model never needs again; a process that ends gives it back.
What fails here is tried again by the caller itself, who then reports it: so this says nothing but whether it went
well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from winnow_inference.models.facts import BiEncoderFacts, CrossEncoderFacts, FactsT
from winnow_inference.models.locating import ModelFolder
from winnow_inference.settings import InferenceSettings

if TYPE_CHECKING:
    from pathlib import Path

_BI_ENCODER, _CROSS_ENCODER = "bi-encoder", "cross-encoder"
_KINDS = {BiEncoderFacts: _BI_ENCODER, CrossEncoderFacts: _CROSS_ENCODER}


def prepare_apart(folder: Path, settings: InferenceSettings, facts_type: type[FactsT]) -> bool:
    """Prepares the model in `folder` for the settings; False if that failed."""
    asked = {
        "kind": _KINDS[facts_type],
        "settings": settings.model_copy(update={"model": str(folder), "revision": ""}).model_dump(
            mode="json", include=set(InferenceSettings.model_fields)
        ),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __spec__.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    # The pipe stays open while it works: should this process end, the other one sees that and ends too.
    with process:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            return process.wait() == 0
        except BrokenPipeError:
            return False
        finally:
            process.kill()


def main() -> None:
    """Reads one line that says what to prepare; ends with status 0 when it lies in the cache."""
    from winnow_inference.opening import open_bi_encoder, open_cross_encoder

    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_caller, name="caller", daemon=True).start()
    settings = InferenceSettings.model_validate(asked["settings"])

    def none() -> ModelFolder:
        raise AssertionError("the settings name a folder")

    if asked["kind"] == _BI_ENCODER:
        open_bi_encoder(settings, default=none, apart=False)
    else:
        open_cross_encoder(settings, default=none, apart=False)


def _end_with_caller() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
