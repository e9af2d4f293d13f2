"""Loads both kinds of model and runs them once while an image is built, with bytecode written on the way.

Compiling all modules of PyTorch and transformers would add 70 MB to the image; a start imports a small part of them,
and after this that part is compiled. It also proves that the libraries work on this base image.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

SERVING = (
    "google.rpc.error_details_pb2",
    "grpc.aio",
    "grpc_health.v1.health",
    "grpc_reflection.v1alpha.reflection",
    "grpc_status.rpc_status",
    "openvino",
    "platformdirs",
    "pydantic_settings",
    "structlog",
)
"""What a service imports beside the model's libraries."""


def main(bi_encoder: Path, cross_encoder: Path) -> None:
    """Runs each model over one short text or pair."""
    for name in SERVING:
        importlib.import_module(name)
    from sentence_transformers import CrossEncoder, SentenceTransformer

    SentenceTransformer(str(bi_encoder), device="cpu").encode(["a text"])
    CrossEncoder(str(cross_encoder), device="cpu").predict([("a query", "a document")])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
