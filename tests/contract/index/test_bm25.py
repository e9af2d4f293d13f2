"""Texts become BM25 vectors in the index by Qdrant's documentation: options, formula, rarity of words, refusals."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import qdrant_edge as edge
from qdrant_client import AsyncQdrantClient, models

TEXTS = [
    "The quick brown foxes jumped over the lazy dogs",
    "Foxes and hounds, and foxes again",
    "Die schnellen Füchse springen über die Hunde",
    "naïve café",
    "of the and",
    "An Answer42 to a very-long question; a question is a question",
]
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {"language": "english"}),
    "a language": ({"language": "german"}, {"language": "german"}),
    "numbers": ({"k": 2.0, "b": 0.1, "avg_len": 8}, {"language": "english", "k": 2.0, "b": 0.1, "avg_len": 8.0}),
    "letters as they are": (
        {"lowercase": False, "ascii_folding": True},
        {"language": "english", "lowercase": False, "ascii_folding": True},
    ),
    "lengths": (
        {"min_token_len": 4, "max_token_len": 6},
        {"language": "english", "min_token_len": 4, "max_token_len": 6},
    ),
    "a tokenizer": (
        {"tokenizer": "whitespace"},
        {"language": "english", "tokenizer": edge.TokenizerType.Whitespace},
    ),
    "no language": (
        {"stemmer": {"type": "none"}, "stopwords": {"languages": [], "custom": []}},
        {"stemmer": edge.DisabledStemmer(), "stopwords": edge.StopwordsSet(set(), set())},
    ),
    "another stemmer": (
        {"stemmer": {"type": "snowball", "language": "german"}},
        {"language": "english", "stemmer": edge.SnowballParams(edge.SnowballLanguage.German)},
    ),
    "another language's stop words": (
        {"stopwords": "german"},
        {"language": "english", "stopwords": edge.Language.German},
    ),
    "stop words of two languages and one's own": (
        {"stopwords": {"languages": ["english", "german"], "custom": ["question"]}},
        {
            "language": "english",
            "stopwords": edge.StopwordsSet({edge.Language.English, edge.Language.German}, {"question"}),
        },
    ),
}


def _document(text: str, **options: Any) -> models.Document:
    return models.Document(text=text, model="qdrant/bm25", options=options or None)


@pytest.fixture
async def collection(remote: AsyncQdrantClient) -> AsyncIterator[str]:
    """An empty collection on the server under test."""
    name = f"bm25-{uuid.uuid4().hex[:8]}"
    await remote.create_collection(
        name,
        vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    yield name
    await remote.delete_collection(name)


async def _fill(client: AsyncQdrantClient, collection: str, **options: Any) -> list[dict[int, float]]:
    """Upserts the texts; what the server made of each."""
    points = [models.PointStruct(id=n, vector={"bm25": _document(text, **options)}) for n, text in enumerate(TEXTS)]
    await client.upsert(collection, points, wait=True)
    records, _ = await client.scroll(collection, limit=100, with_vectors=["bm25"])
    vectors = [(record.vector or {}).get("bm25") for record in records]  # type: ignore[union-attr]
    return [dict(zip(v.indices, v.values, strict=True)) if isinstance(v, models.SparseVector) else {} for v in vectors]


@pytest.mark.parametrize("case", OPTIONS)
async def test_options_mean_what_the_engine_means_by_them(
    remote: AsyncQdrantClient, collection: str, case: str
) -> None:
    sent, meant = OPTIONS[case]
    engine = edge.Bm25(edge.Bm25Config(**meant))
    expected = [engine.embed_document(text) for text in TEXTS]
    for mine, other in zip(await _fill(remote, collection, **sent), expected, strict=True):
        assert mine == pytest.approx(dict(zip(other.indices, other.values, strict=True)))


async def test_a_words_weight_follows_the_documented_formula(remote: AsyncQdrantClient, collection: str) -> None:
    k, b, average = 1.5, 0.6, 5.0
    neutral = {"stemmer": {"type": "none"}, "stopwords": {"languages": [], "custom": []}, "tokenizer": "whitespace"}
    vectors = await _fill(remote, collection, k=k, b=b, avg_len=average, **neutral)
    for text, vector in zip(TEXTS, vectors, strict=True):
        words = text.lower().split()
        norm = k * (1 - b + b * len(words) / average)
        weights = [count * (k + 1) / (count + norm) for count in Counter(words).values()]
        assert sorted(vector.values()) == pytest.approx(sorted(weights), rel=1e-5)


async def test_texts_rank_as_their_vectors_do_in_the_clients_local_mode(
    remote: AsyncQdrantClient, collection: str, rankings_agree: Callable[..., None]
) -> None:
    vectors = await _fill(remote, collection)
    local = AsyncQdrantClient(":memory:")
    await local.create_collection(
        collection,
        vectors_config={},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    # The engine leaves an empty vector out of the count that the rarity of words rests on; the local mode does not.
    await local.upsert(
        collection,
        [
            models.PointStruct(id=n, vector={"bm25": models.SparseVector(indices=list(v), values=list(v.values()))})
            for n, v in enumerate(vectors)
            if v
        ],
    )
    engine = edge.Bm25(edge.Bm25Config(language="english"))
    for query in ("fox", "FOXES and a dog", "question answer42 question", "nothing of it"):
        asked = engine.embed_query(query)
        theirs = await local.query_points(
            collection, query=models.SparseVector(indices=asked.indices, values=asked.values), using="bm25"
        )
        ours = await remote.query_points(collection, query=_document(query), using="bm25")
        rankings_agree(ours.points, theirs.points)
    await local.close()


async def test_a_text_of_stop_words_finds_nothing_and_is_found_by_nothing(
    remote: AsyncQdrantClient, collection: str
) -> None:
    await _fill(remote, collection)
    assert (await remote.query_points(collection, query=_document("the of and"), using="bm25")).points == []
    found = await remote.query_points(collection, query=_document("fox the of and"), using="bm25")
    assert {point.id for point in found.points} == {0, 1}
    assert (await remote.count(collection)).count == len(TEXTS)


async def test_vectors_and_texts_are_fused_at_the_root_with_the_filter_in_each_prefetch(
    remote: AsyncQdrantClient, collection: str
) -> None:
    points = [
        models.PointStruct(id=n, vector={"dense": [1.0, n / 10], "bm25": _document(text)}, payload={"even": n % 2 == 0})
        for n, text in enumerate(TEXTS)
    ]
    await remote.upsert(collection, points, wait=True)
    even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
    found = await remote.query_points(
        collection,
        prefetch=[
            models.Prefetch(query=[1.0, 0.0], using="dense", limit=3, filter=even),
            models.Prefetch(query=_document("a fox"), using="bm25", limit=3, filter=even),
        ],
        query=models.RrfQuery(rrf=models.Rrf(k=5, weights=[1.0, 3.0])),
        limit=3,
    )
    assert [point.id for point in found.points] == [0, 2, 4]
    scores = [1 / (1 + 4) + 1 / (1 / 3 + 4), 1 / (2 + 4), 1 / (3 + 4)]
    assert [point.score for point in found.points] == pytest.approx(scores)


@pytest.mark.parametrize(
    "options",
    [
        {"language": "klingon"},
        {"language": ""},
        {"language": 5},
        {"stemmer": "german"},
        {"stemmer": {"type": "snowball", "language": "klingon"}},
        {"stemmer": {"type": "none", "language": "german"}},
        {"stopwords": "mro"},
        {"stopwords": {"languages": ["klingon"]}},
        {"stopwords": {"custom": [1]}},
        {"stopwords": {"words": []}},
        {"k": -1.0},
        {"b": 2.0},
        {"avg_len": 0},
        {"min_token_len": -1},
        {"tokenizer": "sentences"},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_bad_options_are_refused_by_field_and_leave_nothing(
    client: AsyncQdrantClient, options: dict[str, Any]
) -> None:
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    await client.create_collection("c", vectors_config={}, sparse_vectors_config=sparse)
    points = [
        models.PointStruct(id=1, vector={"bm25": _document("fox")}),
        models.PointStruct(id=2, vector={"bm25": _document("fox", **options)}),
    ]
    for call in (
        client.upsert("c", points, wait=True),
        client.query_points("c", query=_document("fox", **options), using="bm25"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="options: not options of qdrant/bm25") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await client.count("c")).count == 0


async def test_the_older_way_to_take_nothing_off_still_works(client: AsyncQdrantClient) -> None:
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    await client.create_collection("c", vectors_config={}, sparse_vectors_config=sparse)
    points = [models.PointStruct(id=1, vector={"bm25": _document("the foxes", language="none")})]
    await client.upsert("c", points, wait=True)
    for query, ids in (("the", [1]), ("foxes", [1]), ("fox", [])):
        found = await client.query_points("c", query=_document(query, language="none"), using="bm25")
        assert [point.id for point in found.points] == ids


async def test_bm25_vectors_survive_a_crash(index_process: Callable[..., Any]) -> None:
    index = index_process()
    client = index.client()
    sparse = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    await client.create_collection("c", vectors_config={}, sparse_vectors_config=sparse)
    await client.upsert("c", [models.PointStruct(id=1, vector={"bm25": _document("the foxes")})], wait=True)
    with pytest.raises(grpc.aio.AioRpcError):
        bad = [models.PointStruct(id=n, vector={"bm25": _document("fox", language="klingon")}) for n in (2, 3)]
        await client.upsert("c", bad, wait=True)
    index.kill()
    index.start()
    await client.close()
    client = index.client()
    found = await client.query_points("c", query=_document("fox"), using="bm25")
    assert [point.id for point in found.points] == [1]
    assert (await client.count("c")).count == 1
    await client.close()
