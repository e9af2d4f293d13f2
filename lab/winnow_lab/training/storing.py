"""In which number format a trained model's weights are stored: computing is in another, the services' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from winnow_lab.training.run_folder import RunFolder
from winnow_lab.training.settings import Architecture, WeightFormat
from winnow_lab.training.starting import load_start
from winnow_rpc.faults import FailedPrecondition

_NAMES = {"F32": WeightFormat.FLOAT32, "F16": WeightFormat.FLOAT16}


def write_model(model: Any, folder: Path, weights: WeightFormat) -> None:
    """Writes a model as sentence-transformers does, its configuration naming the format; converts it on the way.

    What is nearer to 0 than 3e-8 becomes 0 in float16, which no sum of products notices. Raises FailedPrecondition for
    a weight that float16 does not hold.
    """
    if weights is WeightFormat.FLOAT16:
        _check_range(model)
        model.half()
    model.save_pretrained(str(folder), create_model_card=False)


def store_as(folder: RunFolder, architecture: Architecture, weights: WeightFormat) -> None:
    """Rewrites the model of a finished run if it is stored in another format; all else stays as it is.

    Raises FailedPrecondition if float32 is wanted of what was rounded to float16.
    """
    stored = stored_format(folder.out)
    if stored is weights:
        return
    if weights is WeightFormat.FLOAT32:
        raise FailedPrecondition(
            f"the model in {folder.out} is stored in {stored}, and what was rounded does not come back. Give --store "
            f"{stored}, or --overwrite to train it again.",
            reason="ROUNDED",
        )
    made = folder.training / "model"
    write_model(load_start(architecture, folder.out), made, weights)
    folder.place_model(made)


def stored_format(model: Path) -> WeightFormat:
    """The format that the weights in a model's folder have."""
    from safetensors import safe_open

    found = set()
    for path in model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.offset_keys()}
    return next((_NAMES[name] for name in _NAMES if name in found), WeightFormat.FLOAT32)


def _check_range(model: Any) -> None:
    for name, values in model.state_dict().items():
        if values.is_floating_point() and not values.half().isfinite().all():
            raise FailedPrecondition(
                f"the weights {name} reach {float(values.abs().max()):g}, and float16 ends at 65,504. The same command "
                f"with --store float32 goes on from the last checkpoint and keeps them as they are.",
                reason="NOT_HELD",
            )
