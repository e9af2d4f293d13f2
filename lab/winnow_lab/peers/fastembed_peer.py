"""fastembed (onnxruntime), as by default, with the same weights exported to ONNX in float32. Needs no Winnow."""

from __future__ import annotations

import base64
import hashlib
import importlib
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_EXPORT = Path(__file__).with_name("onnx_export.py")
_NAME = "bench/model"


class Contestant:
    """One model."""

    def __init__(self) -> None:
        self._model: Any = None

    def load(self, *, kind: str, model: str, cache: str, dimension: int) -> dict[str, Any]:
        """Loads the bi-encoder ("bi") or cross-encoder ("cross") in `model`; its export is kept in `cache`."""
        folder = _exported(kind, Path(model), Path(cache))
        library: Any = importlib.import_module("fastembed")
        descriptions: Any = importlib.import_module("fastembed.common.model_description")
        # The cache is for what it fetches, which is nothing; left to itself it makes a folder among the temporary ones.
        where = {"model_name": _NAME, "specific_model_path": str(folder), "cache_dir": cache}
        # A source has to be named, but a folder given outright goes before it: nothing is fetched.
        described = {"model": _NAME, "sources": descriptions.ModelSource(hf=_NAME), "model_file": "model.onnx"}
        if kind == "bi":
            library.TextEmbedding.add_custom_model(
                **described, pooling=descriptions.PoolingType.MEAN, normalization=True, dim=dimension
            )
            self._model = library.TextEmbedding(**where)
        else:
            encoder: Any = importlib.import_module("fastembed.rerank.cross_encoder").TextCrossEncoder
            encoder.add_custom_model(**described)
            self._model = encoder(**where)
        runtime: Any = importlib.import_module("onnxruntime")
        return {"version": library.__version__, "engine": f"onnxruntime {runtime.__version__}"}

    def embed(self, *, texts: list[str], vectors: bool) -> dict[str, Any]:
        """Seconds to embed the texts in their order; and, if asked for, the vectors: float32, little-endian, base64."""
        numpy: Any = importlib.import_module("numpy")
        began = time.perf_counter()
        made = list(self._model.embed(texts))
        seconds = time.perf_counter() - began
        data = base64.b64encode(numpy.asarray(made, dtype="<f4").tobytes()).decode() if vectors else ""
        return {"seconds": seconds, "vectors": data, "dimension": len(made[0])}

    def rerank(self, *, query: str, documents: list[str]) -> dict[str, Any]:
        """Seconds to score the documents, and the scores in their order: logistic of what the model gives."""
        began = time.perf_counter()
        scores = list(self._model.rerank(query, documents))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "scores": [1 / (1 + math.exp(-float(score))) for score in scores]}

    def close(self) -> None:
        """Nothing to do: the process ends."""


def _exported(kind: str, model: Path, cache: Path) -> Path:
    """The folder with the model as ONNX; made by another process, so that torch's threads stay out of this one."""
    digest = hashlib.sha256()
    for part in (model / "model.safetensors", model / "tokenizer.json", _EXPORT):
        digest.update(part.read_bytes())
    folder = cache / f"{kind}-{digest.hexdigest()[:16]}"
    if not (folder / "model.onnx").exists():
        command = [sys.executable, str(_EXPORT), kind, str(model), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError("the export to ONNX failed: " + " ".join(done.stderr.split())[-400:])
    return folder
