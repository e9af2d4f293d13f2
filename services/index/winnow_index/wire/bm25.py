"""The one model that this service runs itself: BM25, which turns text into a sparse vector as a Qdrant server does.

Options are those of Qdrant's `Bm25Config`, in the form that its REST interface documents.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.wire import payloads
from winnow_rpc.faults import InvalidArgument, Unimplemented, quoted

MODEL = "qdrant/bm25"
"""Its name, in any case."""

_OPTIONS = frozenset(
    (
        *("k", "b", "avg_len", "language", "lowercase", "ascii_folding"),
        *("stopwords", "min_token_len", "max_token_len", "tokenizer", "stemmer"),
    )
)
_TOKENIZERS = {
    "prefix": edge.TokenizerType.Prefix,
    "whitespace": edge.TokenizerType.Whitespace,
    "word": edge.TokenizerType.Word,
    "multilingual": edge.TokenizerType.Multilingual,
    "code": edge.TokenizerType.Code,
}


def embed(document: pb.Document, *, field: str, query: bool) -> edge.SparseVector:
    """The BM25 vector of a text. Raises Unimplemented for any other model: this service runs none."""
    if document.model.lower() != MODEL:
        raise Unimplemented(
            f"{field}: this index runs no model but {MODEL}; embed text for {quoted(document.model)} beforehand",
            reason="MODEL_NOT_OFFERED",
            metadata={"model": document.model},
        )
    options = {key: payloads.value_from_wire(v, f"{field}.options.{key}") for key, v in document.options.items()}
    try:
        model = _model(repr(sorted(options.items())), _Options(options))
        return model.embed_query(document.text) if query else model.embed_document(document.text)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{field}.options: not options of {MODEL}: {error}", field=f"{field}.options", reason="BAD_OPTIONS"
        ) from error


class _Options:
    """Options beside their hashable key; equal to any other, so that the cache looks at the key alone."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Options)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=64)
def _model(_key: str, options: _Options) -> edge.Bm25:
    if unknown := sorted(options.values.keys() - _OPTIONS):
        raise ValueError(f"unknown option {unknown[0]!r}")
    # An option that is null is as good as absent, as in Qdrant.
    given = {name: value for name, value in options.values.items() if value is not None}
    if "tokenizer" in given:
        given["tokenizer"] = _tokenizer(given["tokenizer"])
    if given.get("language") == "none":
        # The older way to take nothing off; the engine knows the newer one alone.
        del given["language"]
        given = {"stopwords": {}, "stemmer": {"type": "none"}, **given}
    if "stopwords" in given:
        given["stopwords"] = _stopwords(given["stopwords"])
    if "stemmer" in given:
        given["stemmer"] = _stemmer(given["stemmer"])
    # Qdrant's own default is English.
    given.setdefault("language", "english")
    return edge.Bm25(edge.Bm25Config(**given))


def _tokenizer(name: Any) -> edge.TokenizerType:
    if name not in _TOKENIZERS:
        raise ValueError(f"tokenizer must be one of {', '.join(_TOKENIZERS)}")
    return _TOKENIZERS[name]


def _stopwords(value: Any) -> edge.Language | edge.StopwordsSet:
    """A language's list, or lists of languages and words of one's own together."""
    if isinstance(value, str):
        return stopword_language(value)
    if not isinstance(value, dict) or value.keys() - {"languages", "custom"}:
        raise ValueError("stopwords must be a language, or an object of `languages` and `custom`")
    parts = {name: value.get(name) or [] for name in ("languages", "custom")}
    for name, words in parts.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"stopwords.{name} must be a list of strings")
    return edge.StopwordsSet({stopword_language(name) for name in parts["languages"]}, set(parts["custom"]))


def stopword_language(name: str) -> edge.Language:
    """The language whose list of stop words the name means. Raises ValueError if there is none."""
    language = getattr(edge.Language, name.capitalize(), None) if name.isalpha() else None
    if not isinstance(language, edge.Language):
        raise ValueError(f"there are no stop words for {name!r}")
    return language


def _stemmer(value: Any) -> Any:
    """Snowball for a language, or nothing."""
    if isinstance(value, dict):
        match value.get("type"), value.keys():
            case "none", keys if keys == {"type"}:
                return edge.DisabledStemmer()
            case "snowball", keys if keys == {"type", "language"}:
                return edge.SnowballParams(snowball_language(value["language"]))
    raise ValueError("stemmer must be {'type': 'none'} or {'type': 'snowball', 'language': …}")


def snowball_language(name: Any) -> edge.SnowballLanguage:
    """The language whose endings the Snowball stemmer takes off. Raises ValueError if there is none."""
    known = isinstance(name, str) and name.isalpha()
    language = getattr(edge.SnowballLanguage, name.capitalize(), None) if known else None
    if not isinstance(language, edge.SnowballLanguage):
        raise ValueError(f"there is no stemmer for {name!r}")
    return language
