"""Does while an image is built what a service will do in it.

    python rehearse.py imports                             # the libraries, so that their bytecode is there at a start
    python rehearse.py embedder /opt/winnow/prepared       # converts the default model into that folder
    python rehearse.py reranker /opt/winnow/prepared MODEL

It proves that what `trim.py` left of the libraries works on this base image, and fails the build otherwise.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

SERVING = (
    "google.rpc.error_details_pb2",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "grpc_status.rpc_status",
    "huggingface_hub",
    "numpy",
    "openvino",
    "platformdirs",
    "pydantic_settings",
    "structlog",
    "tokenizers",
)
"""What a service imports at a start whose model is converted already."""


def main(what: str, *arguments: str) -> None:
    """Imports the libraries, or converts the model of a service."""
    if what == "imports":
        for name in SERVING:
            importlib.import_module(name)
        return
    convert(what, Path(arguments[0]), *arguments[1:])


def convert(service: str, prepared: Path, model: str = "") -> None:
    """Leaves the service's converted model in `prepared`; what was measured on this machine is not kept.

    Raises SystemExit if it could not be converted: the service would compute with torch then.
    """
    from winnow_inference.models.locating import ModelFolder
    from winnow_inference.opening import open_bi_encoder, open_cross_encoder
    from winnow_inference.settings import InferenceSettings

    def none() -> ModelFolder:
        raise SystemExit("the reranker's model has to be named")

    settings = InferenceSettings(model=model, cache_dir=prepared, device="cpu", offline=True)
    opened = (
        open_bi_encoder(settings, apart=False)
        if service == "embedder"
        else open_cross_encoder(settings, default=none, apart=False)
    )
    engine = opened.make_engine().description
    if engine.name != "openvino":
        raise SystemExit(f"the model was not converted: {engine.reason}")
    for entry in (prepared / "models").iterdir():
        if not (entry / "model.xml").is_file():
            shutil.rmtree(entry)


if __name__ == "__main__":
    main(*sys.argv[1:])
