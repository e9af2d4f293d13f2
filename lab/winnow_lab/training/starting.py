"""Loads the model that a training starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from winnow_inference.models.weights import check_folder, sha256_of, unreadable
from winnow_lab.hashing import hash_of
from winnow_lab.training.settings import Architecture
from winnow_rpc.faults import FailedPrecondition


def weights_hash(folder: Path) -> str:
    """One hash (hex) over the weights and tokenizer of a model folder. Raises NotFound or FailedPrecondition."""
    check_folder(folder)
    files = [*sorted(folder.glob("*.safetensors")), folder / "tokenizer.json"]
    return hash_of(sha256_of(path) for path in files)


def load_start(architecture: Architecture, folder: Path) -> Any:
    """A SentenceTransformer or CrossEncoder in float32, on the CPU until the trainer moves it.

    A cross-encoder that starts from a bare encoder, or from a bi-encoder, gets a new head with one output: seed torch
    before. Raises NotFound or FailedPrecondition, in one sentence that names the folder.
    """
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    check_folder(folder)
    common: dict[str, Any] = {
        "device": "cpu",
        "local_files_only": True,
        "trust_remote_code": False,
        "model_kwargs": {"dtype": torch.float32, "use_safetensors": True},
    }
    if not torch.cuda.is_available():
        # On a CPU plain products are quicker for short texts than the fused kernel, and their gradients much.
        common["model_kwargs"]["attn_implementation"] = "eager"
    try:
        if architecture is Architecture.BI_ENCODER:
            return SentenceTransformer(str(folder), **common)
        model = CrossEncoder(str(folder), **common)
        if model.num_labels != 1 and model[0].model.config.architectures[0].endswith("ForSequenceClassification"):
            raise FailedPrecondition(
                f"the cross-encoder in {folder} has {model.num_labels} outputs; one that ranks has one",
                reason="MODEL_NOT_SUPPORTED",
            )
        return model if model.num_labels == 1 else CrossEncoder(str(folder), num_labels=1, **common)
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(folder, f"sentence-transformers does not understand it: {error}") from error


def set_dropout(model: Any, share: float) -> None:
    """Drops this share wherever the model has dropout. What is saved as its configuration stays the model's own."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
