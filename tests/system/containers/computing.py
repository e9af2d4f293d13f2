"""Computes a few texts with models, in float32: run inside an image with nothing of these tests there, and outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from winnow_inference.models.locating import ModelFolder
from winnow_inference.opening import open_bi_encoder, open_cross_encoder
from winnow_inference.reference import sequences_of
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer

TEXTS = ["water for green tea", "the dog chased the cat", "a river of ice", "how does bread rise"]
CROSS = "cross:"
"""Stands before the folder of a cross-encoder; without it, and without a folder, the default bi-encoder."""
PREPARED = Path("/opt/winnow/prepared")


def computed(model: str) -> tuple[str, Any]:
    """(engine, float32 [texts, width])."""

    def none() -> ModelFolder:
        raise ValueError("a cross-encoder is named")

    settings = InferenceSettings(
        model=model.removeprefix(CROSS), prepared_dir=PREPARED, device="cpu", dtype="float32", offline=True
    )
    opened: Any = (
        open_cross_encoder(settings, default=none, apart=False)
        if model.startswith(CROSS)
        else open_bi_encoder(settings, apart=False)
    )
    tokenizer = TextTokenizer(opened.tokenizer, max_token_count=opened.facts.max_token_count)
    engine = opened.make_engine()
    rows = engine.run(engine.prepare(sequences_of(opened.facts, tokenizer, TEXTS)), 0)
    tokenizer.close()
    return engine.description.name, rows


if __name__ == "__main__":
    results = [(model, *computed(model)) for model in sys.argv[1:]]
    sys.stdout.write("\n" + json.dumps([(model, engine, rows.tolist()) for model, engine, rows in results]) + "\n")
