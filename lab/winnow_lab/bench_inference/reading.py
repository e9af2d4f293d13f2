"""Reads the texts that are measured with, from a judged set or from Python's own documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from winnow_client.cli.stdlib_corpus import stdlib_documents
from winnow_client.documents import Document
from winnow_lab.bench_inference.texts import (
    PASSAGE_TOKENS,
    QUERY_TOKENS,
    Texts,
    first_sentence,
    overlapping,
    spread,
    within,
)
from winnow_lab.data.beir import read_documents, read_query_texts
from winnow_rpc.faults import InvalidArgument, NotFound

_QUERIES = 300
_FILES = ("corpus.jsonl", "corpus.jsonl.gz")


def read_texts(data: Path | None, tokenizer_file: Path, *, passages: int, depth: int) -> Texts:
    """At most `passages` passages and 300 queries of the right lengths by this tokenizer; `depth` candidates a query.

    `data` is a folder in the BEIR layout, or its corpus.jsonl, gzipped or not; None: the documentation of Python's
    standard library. Raises InvalidArgument if nothing in it has the right length.
    """
    if data is None:
        documents: Sequence[Document] = stdlib_documents()
        queries = [first_sentence(document.text) for document in documents]
        source = "documentation of Python's standard library"
    else:
        folder = _folder(data)
        documents = list(read_documents(folder))
        queries = list(read_query_texts(folder).values())
        source = str(data)
    if not tokenizer_file.is_file():
        raise NotFound(f"there is no {tokenizer_file}: a model with a fast tokenizer is needed")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # As the gateway puts them together.
    bodies = [f"{document.title}\n{document.text}" if document.title else document.text for document in documents]
    chosen_passages = _choose(tokenizer, list(dict.fromkeys(bodies)), PASSAGE_TOKENS, passages, f"passage in {source}")
    chosen_queries = _choose(tokenizer, list(dict.fromkeys(queries)), QUERY_TOKENS, _QUERIES, f"query in {source}")
    return Texts(
        source=source,
        passages=[text for text, _ in chosen_passages],
        passage_tokens=[len(ids) for _, ids in chosen_passages],
        queries=[text for text, _ in chosen_queries],
        query_tokens=[len(ids) for _, ids in chosen_queries],
        candidates=overlapping([ids for _, ids in chosen_queries], [ids for _, ids in chosen_passages], depth),
    )


def _folder(data: Path) -> Path:
    if data.is_dir():
        return data
    if data.is_file() and data.name in _FILES:
        return data.parent
    raise InvalidArgument(f"{data} is neither a folder in the BEIR layout nor a corpus.jsonl", field="data")


def _choose(
    tokenizer: Tokenizer, texts: Sequence[str], bounds: tuple[int, int], count: int, what: str
) -> list[tuple[str, list[int]]]:
    encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast([*texts])]
    chosen = spread(within([len(ids) for ids in encoded], bounds), count)
    if not chosen:
        raise InvalidArgument(f"no {what} has {bounds[0]} to {bounds[1]} tokens", field="data")
    return [(texts[position], encoded[position]) for position in chosen]
