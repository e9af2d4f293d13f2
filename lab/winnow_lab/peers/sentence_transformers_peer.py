"""sentence-transformers as its users call it: `encode` and `predict`, batches of 32, on all cores. Needs no Winnow."""

from __future__ import annotations

import base64
import importlib
import time
from typing import Any

BATCH = 32
"""Texts or pairs of one batch: the library's default."""


class Contestant:
    """One model in one number format."""

    def __init__(self) -> None:
        self._model: Any = None

    def load(self, *, kind: str, model: str, dtype: str) -> dict[str, Any]:
        """Loads the bi-encoder ("bi") or cross-encoder ("cross") in the folder `model`.

        `dtype` is "float32" or "bfloat16", said outright: left alone, the library computes in what the file holds, and
        a file of float16 is slow on a CPU.
        """
        torch: Any = importlib.import_module("torch")
        library: Any = importlib.import_module("sentence_transformers")
        made = library.SentenceTransformer if kind == "bi" else library.CrossEncoder
        options = {"dtype": getattr(torch, dtype)}
        self._model = made(model, device="cpu", local_files_only=True, model_kwargs=options)
        return {
            "version": library.__version__,
            "engine": f"torch {torch.__version__}",
            "threads": torch.get_num_threads(),
        }

    def embed(self, *, texts: list[str], vectors: bool) -> dict[str, Any]:
        """Seconds to embed the texts in their order; and, if asked for, the vectors: float32, little-endian, base64."""
        began = time.perf_counter()
        made = self._model.encode(texts, batch_size=BATCH, show_progress_bar=False)
        seconds = time.perf_counter() - began
        data = base64.b64encode(made.astype("<f4").tobytes()).decode() if vectors else ""
        return {"seconds": seconds, "vectors": data, "dimension": int(made.shape[1])}

    def rerank(self, *, query: str, documents: list[str]) -> dict[str, Any]:
        """Seconds to score the documents, and the scores in their order."""
        began = time.perf_counter()
        scores = self._model.predict([(query, text) for text in documents], batch_size=BATCH, show_progress_bar=False)
        return {"seconds": time.perf_counter() - began, "scores": [float(score) for score in scores]}

    def close(self) -> None:
        """Nothing to do: the process ends."""
