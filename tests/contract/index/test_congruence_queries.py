"""Queries of every kind rank the same points, with the same scores, here as in the client's own local mode.

Scores are float32 sums in a different order on the two sides, so they are compared to a relative 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

POINTS, SIZE = 150, 12
TOLERANCE = 1e-4
Field = models.FieldCondition


def _sparse(random: np.random.Generator) -> models.SparseVector:
    count = int(random.integers(1, 8))
    indices = sorted(int(n) for n in random.choice(40, count, replace=False))
    return models.SparseVector(indices=indices, values=[float(np.float32(v)) for v in random.uniform(0.1, 2, count)])


def _dense(random: np.random.Generator, size: int = SIZE) -> list[float]:
    return [float(np.float32(v)) for v in random.normal(size=size)]


def _vector(random: np.random.Generator, name: str) -> Any:
    if name.startswith("sparse"):
        return _sparse(random)
    if name == "many":
        return [_dense(random, 4) for _ in range(int(random.integers(1, 4)))]
    return _dense(random)


DENSE = {"cosine": "Cosine", "dot": "Dot", "euclid": "Euclid", "manhattan": "Manhattan"}
NAMES = [*DENSE, "many", "sparse", "sparse idf"]


@pytest.fixture
async def filled(pair: Any, payloads: list[dict[str, Any]]) -> Any:
    await pair.create(
        vectors_config={
            **{name: models.VectorParams(size=SIZE, distance=distance) for name, distance in DENSE.items()},
            "many": models.VectorParams(
                size=4,
                distance="Cosine",
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={
            "sparse": models.SparseVectorParams(),
            "sparse idf": models.SparseVectorParams(modifier=models.Modifier.IDF),
        },
    )
    for key, schema in {
        "number": "integer",
        "word": "keyword",
        "tags": "keyword",
        "real": "float",
        "when": "datetime",
    }.items():
        await pair.remote_only("create_payload_index", field_name=key, field_schema=schema, wait=False)
    random = np.random.default_rng(11)
    points = []
    for n in range(POINTS):
        vectors = {name: _vector(random, name) for name in NAMES}
        if n % 10 == 0:
            del vectors["dot"]
        points.append(models.PointStruct(id=n, vector=vectors, payload=payloads[n]))
    await pair.call("upsert", points=points)
    return pair


async def _same(pair: Any, agree: Callable[..., None], **query: Any) -> list[Any]:
    ours, theirs = await pair.call("query_points", **query)
    agree(ours.points, theirs.points, TOLERANCE)
    return list(ours.points)


def _filter(random: np.random.Generator) -> models.Filter | None:
    if random.random() < 0.4:
        return None
    return models.Filter(must=[Field(key="number", range=models.Range(gte=int(random.integers(0, 12))))])


@pytest.mark.parametrize("name", NAMES)
async def test_nearest_points_are_the_same(filled: Any, rankings_agree: Callable[..., None], name: str) -> None:
    random = np.random.default_rng(1)
    for n in range(12):
        query = _vector(random, name) if n % 3 else int(random.integers(1, POINTS))
        if isinstance(query, int) and query % 10 == 0:
            query += 1
        await _same(
            filled,
            rankings_agree,
            query=query,
            using=name,
            limit=int(random.integers(1, 30)),
            offset=int(random.integers(0, 5)),
            query_filter=_filter(random),
            with_payload=True,
        )


@pytest.mark.parametrize("name", ["cosine", "dot", "euclid", "sparse"])
async def test_a_threshold_cuts_at_the_same_rank(filled: Any, rankings_agree: Callable[..., None], name: str) -> None:
    random = np.random.default_rng(2)
    cut = []
    for _ in range(6):
        query = _vector(random, name)
        everything = (await filled.remote.query_points(filled.name, query=query, using=name, limit=40)).points
        threshold = float(np.mean([everything[9].score, everything[10].score]))
        cut.append(
            len(await _same(filled, rankings_agree, query=query, using=name, limit=40, score_threshold=threshold))
        )
    assert set(cut) == {10}


@pytest.mark.parametrize("fusion", ["rrf", "dbsf"])
async def test_fused_rankings_are_the_same(filled: Any, rankings_agree: Callable[..., None], fusion: str) -> None:
    random = np.random.default_rng(3)
    for _ in range(8):
        prefetch = [
            models.Prefetch(query=_dense(random), using="cosine", limit=20, filter=_filter(random)),
            models.Prefetch(query=_sparse(random), using="sparse idf", limit=20),
            models.Prefetch(query=_dense(random), using="euclid", limit=15),
        ]
        await _same(
            filled,
            rankings_agree,
            prefetch=prefetch,
            query=models.FusionQuery(fusion=models.Fusion(fusion)),
            limit=25,
            query_filter=_filter(random),
        )


async def test_rrf_with_its_own_constant_and_weights_is_the_same(
    filled: Any, rankings_agree: Callable[..., None]
) -> None:
    random = np.random.default_rng(4)
    for k, weights in ((1, None), (2, [1.0, 2.0]), (60, [0.5, 3.0]), (None, [2.0, 1.0])):
        prefetch = [
            models.Prefetch(query=_dense(random), using="cosine", limit=30),
            models.Prefetch(query=_sparse(random), using="sparse", limit=30),
        ]
        await _same(
            filled,
            rankings_agree,
            prefetch=prefetch,
            query=models.RrfQuery(rrf=models.Rrf(k=k, weights=weights)),
            limit=20,
        )


async def test_nested_prefetches_rescore_the_same(filled: Any, rankings_agree: Callable[..., None]) -> None:
    random = np.random.default_rng(5)
    for _ in range(6):
        inner = models.Prefetch(
            prefetch=[
                models.Prefetch(query=_dense(random), using="euclid", limit=40),
                models.Prefetch(query=_dense(random), using="manhattan", limit=40, filter=_filter(random)),
            ],
            query=models.FusionQuery(fusion=models.Fusion.RRF),
            limit=60,
        )
        await _same(filled, rankings_agree, prefetch=inner, query=_dense(random), using="cosine", limit=15)


async def test_diversified_rankings_are_the_same(filled: Any) -> None:
    random = np.random.default_rng(6)
    for diversity in (0.0, 0.3, 0.5, 0.9):
        query = models.NearestQuery(nearest=_dense(random), mmr=models.Mmr(diversity=diversity, candidates_limit=40))
        ours, theirs = await filled.call("query_points", query=query, using="cosine", limit=12, with_payload=False)
        assert [p.id for p in ours.points] == [p.id for p in theirs.points]
        assert [p.score for p in ours.points] == pytest.approx([p.score for p in theirs.points], abs=TOLERANCE)
        assert all(p.vector is None for p in ours.points)


@pytest.mark.parametrize("strategy", ["average_vector", "best_score", "sum_scores"])
async def test_recommendations_are_the_same(filled: Any, rankings_agree: Callable[..., None], strategy: str) -> None:
    random = np.random.default_rng(7)
    for _ in range(5):
        given = models.RecommendInput(
            positive=[int(random.integers(1, POINTS)), _dense(random)],
            negative=[int(random.integers(1, POINTS))],
            strategy=models.RecommendStrategy(strategy),
        )
        await _same(filled, rankings_agree, query=models.RecommendQuery(recommend=given), using="cosine", limit=10)


async def test_discovery_and_context_are_the_same(filled: Any, rankings_agree: Callable[..., None]) -> None:
    random = np.random.default_rng(8)
    for _ in range(5):
        pairs = [
            models.ContextPair(positive=_dense(random), negative=int(random.integers(1, POINTS))) for _ in range(3)
        ]
        found = models.DiscoverQuery(discover=models.DiscoverInput(target=_dense(random), context=pairs))
        await _same(filled, rankings_agree, query=found, using="cosine", limit=10)
        await _same(filled, rankings_agree, query=models.ContextQuery(context=pairs), using="cosine", limit=10)


async def test_formulas_give_the_same_scores(filled: Any, rankings_agree: Callable[..., None]) -> None:
    random = np.random.default_rng(9)
    boosted = models.SumExpression(
        sum=[
            "$score",
            models.MultExpression(mult=[0.5, Field(key="word", match=models.MatchAny(any=["alpha", "beta"]))]),
            models.MultExpression(mult=[0.01, "number"]),
        ]
    )
    for _ in range(4):
        await _same(
            filled,
            rankings_agree,
            prefetch=models.Prefetch(query=_dense(random), using="cosine", limit=50),
            query=models.FormulaQuery(formula=boosted),
            limit=20,
        )


@pytest.mark.parametrize("key", ["number", "real", "when"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_points_come_in_the_same_order_of_their_payload(filled: Any, key: str, direction: str) -> None:
    order = models.OrderBy(key=key, direction=models.Direction(direction))
    (ours, _), (theirs, _) = await filled.call("scroll", order_by=order, limit=POINTS, with_payload=[key])
    # Points with the same value may come in any order.
    assert [r.payload[key] for r in ours] == [r.payload[key] for r in theirs]
    assert {r.id for r in ours} == {r.id for r in theirs}
    mine, other = await filled.call(
        "query_points", query=models.OrderByQuery(order_by=order), limit=POINTS, with_payload=[key]
    )
    assert [p.payload[key] for p in mine.points] == [p.payload[key] for p in other.points]


async def test_an_order_can_start_in_the_middle(filled: Any) -> None:
    order = models.OrderBy(key="number", direction=models.Direction.DESC, start_from=9)
    (ours, _), (theirs, _) = await filled.call("scroll", order_by=order, limit=POINTS, with_payload=["number"])
    assert [r.payload["number"] for r in ours] == [r.payload["number"] for r in theirs]
    assert ours[0].payload["number"] == 9


async def test_pages_join_to_the_whole(filled: Any) -> None:
    seen, offset = [], None
    while True:
        ours, theirs = await filled.call(
            "scroll", limit=17, offset=offset, with_vectors=["cosine"], with_payload=["number"]
        )
        assert [(r.id, r.payload) for r in ours[0]] == [(r.id, r.payload) for r in theirs[0]]
        assert ours[1] == theirs[1]
        seen += [r.id for r in ours[0]]
        offset = ours[1]
        if offset is None:
            break
    assert seen == list(range(POINTS))


@pytest.mark.parametrize("key", ["word", "number", "tags"])
async def test_groups_are_the_same(filled: Any, rankings_agree: Callable[..., None], key: str) -> None:
    random = np.random.default_rng(10)
    for _ in range(5):
        limit, size = int(random.integers(1, 6)), int(random.integers(1, 5))
        ours, theirs = await filled.call(
            "query_points_groups",
            query=_dense(random),
            using="cosine",
            group_by=key,
            limit=limit,
            group_size=size,
            query_filter=_filter(random),
            with_payload=["number"],
        )
        assert [g.id for g in ours.groups] == [g.id for g in theirs.groups]
        for mine, other in zip(ours.groups, theirs.groups, strict=True):
            rankings_agree(mine.hits, other.hits, TOLERANCE)


async def test_groups_look_up_points_of_another_collection(filled: Any) -> None:
    other = f"{filled.name}-numbers"
    await filled.create(name=other, vectors_config=models.VectorParams(size=2, distance="Dot"))
    points = [models.PointStruct(id=n, vector=[1.0, n], payload={"label": f"number {n}"}) for n in range(0, 20, 2)]
    await filled.call("upsert", collection_name=other, points=points)
    ours, theirs = await filled.call(
        "query_points_groups",
        query=_dense(np.random.default_rng(12)),
        using="cosine",
        group_by="number",
        limit=6,
        with_lookup=models.WithLookup(collection=other, with_payload=True),
    )
    assert [(g.id, g.lookup and g.lookup.payload) for g in ours.groups] == [
        (g.id, g.lookup and g.lookup.payload) for g in theirs.groups
    ]
    assert any(g.lookup for g in ours.groups)


async def test_vectors_are_looked_up_in_another_collection(filled: Any, rankings_agree: Callable[..., None]) -> None:
    other = f"{filled.name}-elsewhere"
    await filled.create(name=other, vectors_config={"elsewhere": models.VectorParams(size=SIZE, distance="Dot")})
    point = models.PointStruct(id=5, vector={"elsewhere": _dense(np.random.default_rng(1))})
    await filled.call("upsert", collection_name=other, points=[point])
    lookup = models.LookupLocation(collection=other, vector="elsewhere")
    points = await _same(filled, rankings_agree, query=5, using="dot", lookup_from=lookup, limit=POINTS)
    assert 5 in [p.id for p in points], "a point of the same id here is another point"


@pytest.mark.parametrize("key", ["word", "number", "tags"])
async def test_facets_count_the_same(filled: Any, key: str) -> None:
    chosen = models.Filter(must=[Field(key="real", range=models.Range(gte=0))])
    for condition in (None, chosen):
        ours, theirs = await filled.call("facet", key=key, limit=50, facet_filter=condition, exact=True)
        assert [(h.value, h.count) for h in ours.hits] == [(h.value, h.count) for h in theirs.hits]


async def test_a_batch_answers_each_query(filled: Any, rankings_agree: Callable[..., None]) -> None:
    random = np.random.default_rng(13)
    requests = [
        models.QueryRequest(query=_vector(random, name), using=name, limit=7, with_payload=True) for name in NAMES
    ]
    ours, theirs = await filled.call("query_batch_points", requests=requests)
    for mine, other in zip(ours, theirs, strict=True):
        rankings_agree(mine.points, other.points, TOLERANCE)


async def test_payload_and_vectors_can_be_chosen(filled: Any, settled: Callable[[Any], Any]) -> None:
    for selector in (True, False, ["word", "deep.inner"], models.PayloadSelectorExclude(exclude=["text", "deep"])):
        for vectors in (True, False, ["sparse", "cosine"]):
            ours, theirs = await filled.call(
                "retrieve", ids=[3, 149, 7, 1000], with_payload=selector, with_vectors=vectors
            )
            assert [r.id for r in ours] == [r.id for r in theirs] == [3, 149, 7]
            assert [settled(r.payload or {}) for r in ours] == [settled(r.payload or {}) for r in theirs]
            assert [set(r.vector or {}) for r in ours] == [set(r.vector or {}) for r in theirs]


async def test_a_sample_is_of_the_points_that_match(filled: Any) -> None:
    chosen = models.Filter(must=[Field(key="number", range=models.Range(gte=10))])
    allowed = {r.id for r in (await filled.remote.scroll(filled.name, scroll_filter=chosen, limit=POINTS))[0]}
    seen = set()
    for _ in range(5):
        sample = models.SampleQuery(sample=models.Sample.RANDOM)
        points = (await filled.remote.query_points(filled.name, query=sample, query_filter=chosen, limit=10)).points
        assert len(points) == 10
        seen |= {p.id for p in points}
    assert seen <= allowed
    assert len(seen) > 10


async def test_points_without_a_query_come_by_id(filled: Any) -> None:
    ours, theirs = await filled.call("query_points", limit=20, offset=3, with_payload=False)
    assert [p.id for p in ours.points] == [p.id for p in theirs.points]
