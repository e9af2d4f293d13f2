"""Every kind of condition matches the same points here as in the client's own local mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

Field = models.FieldCondition
INDEXES: dict[str, Any] = {
    "word": models.PayloadSchemaType.KEYWORD,
    "number": models.PayloadSchemaType.INTEGER,
    "real": models.PayloadSchemaType.FLOAT,
    "flag": models.PayloadSchemaType.BOOL,
    "when": models.PayloadSchemaType.DATETIME,
    "where": models.PayloadSchemaType.GEO,
    "uuid": models.PayloadSchemaType.UUID,
    "parts[].size": models.PayloadSchemaType.INTEGER,
    "deep.inner": models.PayloadSchemaType.KEYWORD,
}


def _some(random: np.random.Generator, items: list[Any], most: int = 3) -> list[Any]:
    return [items[int(n)] for n in random.integers(0, len(items), int(random.integers(1, most + 1)))]


def _ring(random: np.random.Generator) -> models.GeoLineString:
    lon, lat = random.uniform(-5, 5, 2)
    width, height = random.uniform(1, 5, 2)
    corners = [(lon, lat), (lon + width, lat), (lon + width, lat + height), (lon, lat + height), (lon, lat)]
    return models.GeoLineString(points=[models.GeoPoint(lon=float(x), lat=float(y)) for x, y in corners])


def _box(random: np.random.Generator) -> models.GeoBoundingBox:
    lon, lat = (float(v) for v in random.uniform(-5, 0, 2))
    return models.GeoBoundingBox(
        top_left=models.GeoPoint(lon=lon, lat=lat + 6), bottom_right=models.GeoPoint(lon=lon + 6, lat=lat)
    )


def _instant(random: np.random.Generator) -> str:
    return f"2024-{int(random.integers(1, 13)):02d}-{int(random.integers(1, 28)):02d}T12:00:00Z"


def _nested(random: np.random.Generator) -> models.NestedCondition:
    inner = models.Filter(
        must=[
            Field(key="name", match=models.MatchValue(value=_some(random, ["a", "b", "c"], 1)[0])),
            Field(key="size", range=models.Range(gte=int(random.integers(0, 10)))),
        ]
    )
    return models.NestedCondition(nested=models.Nested(key="parts", filter=inner))


WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]
KINDS: dict[str, Callable[[np.random.Generator, list[Any]], Any]] = {
    "match keyword": lambda r, d: Field(key="word", match=models.MatchValue(value=_some(r, WORDS, 1)[0])),
    "match integer": lambda r, d: Field(key="number", match=models.MatchValue(value=int(r.integers(0, 20)))),
    "match bool": lambda r, d: Field(key="flag", match=models.MatchValue(value=bool(r.integers(0, 2)))),
    "match uuid": lambda r, d: Field(key="uuid", match=models.MatchValue(value=d[int(r.integers(len(d)))]["uuid"])),
    "match any words": lambda r, d: Field(key="word", match=models.MatchAny(any=_some(r, WORDS))),
    "match any numbers": lambda r, d: Field(
        key="number", match=models.MatchAny(any=[int(n) for n in r.integers(0, 20, 4)])
    ),
    "match nothing": lambda r, d: Field(key="word", match=models.MatchAny(any=[])),
    "match except": lambda r, d: Field(key="word", match=models.MatchExcept(**{"except": _some(r, WORDS)})),
    "match text": lambda r, d: Field(key="text", match=models.MatchText(text=_some(r, WORDS, 1)[0])),
    "match phrase": lambda r, d: Field(key="text", match=models.MatchPhrase(phrase=" ".join(_some(r, WORDS, 2)))),
    "match text any": lambda r, d: Field(key="text", match=models.MatchTextAny(text_any=" ".join(_some(r, WORDS, 2)))),
    "match prefix": lambda r, d: Field(key="word", match=models.MatchPrefix(prefix=_some(r, WORDS, 1)[0][:2])),
    "match substring": lambda r, d: Field(
        key="word", match=models.MatchSubstring(substring=_some(r, WORDS, 1)[0][1:4])
    ),
    "range": lambda r, d: Field(
        key="number", range=models.Range(gte=int(r.integers(0, 10)), lt=int(r.integers(10, 20)))
    ),
    "range of reals": lambda r, d: Field(
        key="real", range=models.Range(gt=float(r.uniform(-2, 0)), lte=float(r.uniform(0, 2)))
    ),
    "range of dates": lambda r, d: Field(key="when", range=models.DatetimeRange(gte=_instant(r))),
    "range of dates, open": lambda r, d: Field(key="when", range=models.DatetimeRange(lt=_instant(r))),
    "geo box": lambda r, d: Field(key="where", geo_bounding_box=_box(r)),
    "geo radius": lambda r, d: Field(
        key="where",
        geo_radius=models.GeoRadius(center=models.GeoPoint(lon=0.5, lat=0.5), radius=float(r.uniform(1e5, 8e5))),
    ),
    "geo polygon": lambda r, d: Field(key="where", geo_polygon=models.GeoPolygon(exterior=_ring(r))),
    "values count": lambda r, d: Field(key="tags", values_count=models.ValuesCount(gte=int(r.integers(0, 3)), lt=4)),
    "field is empty": lambda r, d: Field(key="maybe", is_empty=bool(r.integers(0, 2))),
    "field is null": lambda r, d: Field(key="maybe", is_null=bool(r.integers(0, 2))),
    "is empty": lambda r, d: models.IsEmptyCondition(is_empty=models.PayloadField(key="maybe")),
    "is null": lambda r, d: models.IsNullCondition(is_null=models.PayloadField(key="maybe")),
    "has id": lambda r, d: models.HasIdCondition(has_id=[int(n) for n in r.integers(0, 250, 20)]),
    "has vector": lambda r, d: models.HasVectorCondition(has_vector="second"),
    "slice": lambda r, d: models.SliceCondition(slice=models.Slice(total=4, index=int(r.integers(0, 4)))),
    "array elements": lambda r, d: Field(key="parts[].size", match=models.MatchValue(value=int(r.integers(0, 10)))),
    "deep": lambda r, d: Field(key="deep.inner", match=models.MatchValue(value=_some(r, WORDS, 1)[0])),
    "element of an array": lambda r, d: Field(key="tags", match=models.MatchValue(value=_some(r, WORDS, 1)[0])),
    "nested": lambda r, d: _nested(r),
}


def _tree(random: np.random.Generator, data: list[Any], depth: int = 0) -> models.Filter:
    def leaf() -> Any:
        if depth < 2 and random.random() < 0.2:
            return _tree(random, data, depth + 1)
        return list(KINDS.values())[int(random.integers(len(KINDS)))](random, data)

    clauses: dict[str, Any] = {}
    for name in ("must", "should", "must_not"):
        if random.random() < 0.6:
            clauses[name] = [leaf() for _ in range(int(random.integers(1, 4)))]
    if random.random() < 0.2:
        clauses["min_should"] = models.MinShould(conditions=[leaf() for _ in range(3)], min_count=2)
    return models.Filter(**clauses)


async def _same_matches(pair: Any, chosen: models.Filter) -> int:
    ours, theirs = await pair.call("scroll", scroll_filter=chosen, limit=1000, with_payload=False)
    assert [r.id for r in ours[0]] == [r.id for r in theirs[0]], chosen.model_dump_json(exclude_none=True)
    ours, theirs = await pair.call("count", count_filter=chosen, exact=True)
    assert ours.count == theirs.count
    return int(ours.count)


@pytest.fixture(params=["without payload indexes", "with payload indexes"])
async def filled(request: pytest.FixtureRequest, pair: Any, payloads: list[dict[str, Any]]) -> Any:
    await pair.create(vectors_config={n: models.VectorParams(size=4, distance="Dot") for n in ("first", "second")})
    if request.param == "with payload indexes":
        for key, schema in INDEXES.items():
            await pair.remote_only("create_payload_index", field_name=key, field_schema=schema, wait=False)
        await pair.remote_only(
            "create_payload_index",
            field_name="text",
            field_schema=models.TextIndexParams(type="text", tokenizer="word", lowercase=True, phrase_matching=True),
            wait=False,
        )
    points = [
        models.PointStruct(
            id=n, vector={"first": [1.0, 0, 0, n]} | ({"second": [n, 1.0, 0, 0]} if n % 3 else {}), payload=p
        )
        for n, p in enumerate(payloads)
    ]
    await pair.call("upsert", points=points)
    return pair


async def test_a_condition_of_each_kind_matches_the_same_points(
    filled: Any, payloads: list[Any], subtests: pytest.Subtests
) -> None:
    for number, (kind, make) in enumerate(KINDS.items()):
        with subtests.test(kind):
            random = np.random.default_rng(number)
            matched = 0
            for _ in range(4):
                condition = make(random, payloads)
                matched += await _same_matches(filled, models.Filter(must=[condition]))
                await _same_matches(filled, models.Filter(must_not=[condition]))
            assert matched > 0 or kind == "match nothing", "the data never met the condition: this proves nothing"


async def test_trees_of_conditions_match_the_same_points(filled: Any, payloads: list[Any]) -> None:
    random = np.random.default_rng(99)
    counts = [await _same_matches(filled, _tree(random, payloads)) for _ in range(40)]
    assert len(set(counts)) > 10


async def test_counts_that_need_not_be_exact_are_no_more_than_all(filled: Any) -> None:
    chosen = models.Filter(must=[Field(key="word", match=models.MatchValue(value="alpha"))])
    estimate = await filled.remote_only("count", count_filter=chosen, exact=False)
    everything = await filled.remote_only("count", exact=True)
    assert 0 <= estimate.count <= everything.count
