"""What the tests of an index share: a collection, its documents, and how to fill and search it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes.backends import DIMENSION, embed_words
from winnow_gateway.collections import (
    CollectionSpec,
    EmbedderModel,
    HnswConfig,
    LexicalConfig,
    MetadataField,
    MetadataType,
    Similarity,
)
from winnow_gateway.documents import WHOLE_DOCUMENT, Document
from winnow_gateway.filters import NO_FILTER
from winnow_gateway.ordering import DEFAULT_FUSION
from winnow_gateway.ports import Candidate, Index, Point

SPEC = CollectionSpec(
    name="docs",
    embedder=EmbedderModel("some-model", "a" * 64, DIMENSION, Similarity.COSINE),
    description="Führer durch die Dinge",
    metadata_fields=(MetadataField("year", MetadataType.INTEGER), MetadataField("author.name", MetadataType.KEYWORD)),
    hnsw=HnswConfig(m=8, ef_construct=64),
    # Words as they are written: the fake takes nothing off them.
    lexical=LexicalConfig(language="none", average_words=5),
)
DOCUMENTS = [
    Document("cat", "Cats", "the cat sat on the mat", {"year": 1999, "tags": ["pet", "fur"], "open": True}),
    Document("dog", "Dogs", "the dog chased the cat", {"year": 2005, "author": {"name": "Ann"}, "open": False}),
    Document("fox", "", "a quick brown fox", {"year": 2010, "seen": "2020-05-01T00:00:00Z", "tags": []}),
    Document(
        "ün/ï çødé #1?",
        "Ünïcode",
        "naïve café ☕",
        {"score": 0.5, "nothing": None, "two words, ☕": "x", "deep": {"a": [{"b": 1}]}},
    ),
]


def point(document: Document) -> Point:
    return Point(document, document.content_hash, embed_words(document.passage))


async def fill(index: Index, documents: Sequence[Document] = DOCUMENTS) -> None:
    await index.create_collection(SPEC)
    await index.upsert("docs", [point(each) for each in documents])


async def retrieve(
    index: Index, vector: NDArray[np.float32] | None, text: str | None, **options: Any
) -> list[Candidate]:
    given = {
        "name": "docs",
        "fusion": DEFAULT_FUSION,
        "limit": 10,
        "filter_": NO_FILTER,
        "view": WHOLE_DOCUMENT,
        "min_score": None,
        "ef": None,
        "exact": False,
        **options,
    }
    return list(await index.retrieve(given.pop("name"), vector=vector, text=text, **given))
