"""Tiny models with random weights, built where a test wants them and always the same: no download, no megabytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = """
a the of in to and is what which how capital city france paris germany berlin river sea bread cheese music
query passage hello world one two three four five six seven eight nine ten red green blue
"""
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _tokenizer(folder: Path, *, limit: int | None) -> int:
    """A WordPiece tokenizer over WORDS and single letters; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = list(dict.fromkeys([*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters), *".,:?!"]))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **({"model_max_length": limit} if limit else {}),
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def _config(vocabulary: int, *, limit: int, **more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=limit,
        **more,
    )


def build_bi_encoder(
    folder: Path,
    *,
    seed: int = 0,
    limit: int = 32,
    tokenizer_limit: int | None = 32,
    prompts: dict[str, str] | None = None,
    include_prompt: bool = True,
) -> Path:
    """A bi-encoder of 16 dimensions: Transformer, mean pooling, normalisation."""
    import torch
    from transformers import BertModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _tokenizer(folder, limit=tokenizer_limit)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(_config(vocabulary, limit=limit), add_pooling_layer=False).save_pretrained(folder)
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    _write(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": include_prompt},
    )
    _write(
        folder / "config_sentence_transformers.json",
        {"__version__": {}, "prompts": prompts or {}, "similarity_fn_name": "cosine"},
    )
    return folder


def build_cross_encoder(
    folder: Path, *, seed: int = 0, limit: int = 32, labels: list[str] | None = None, activation: str | None = None
) -> Path:
    """A cross-encoder with one output, or one for each of `labels`."""
    import torch
    from transformers import BertForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _tokenizer(folder, limit=limit)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Wide weights, or all scores would be nearly equal.
        config = _config(
            vocabulary, limit=limit, initializer_range=0.5, id2label=dict(enumerate(labels or ["LABEL_0"]))
        )
        if activation:
            config.sentence_transformers = {"activation_fn": activation, "version": "6.2.0"}
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
