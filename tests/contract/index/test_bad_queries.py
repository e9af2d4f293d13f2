"""Bad queries and filters are refused by name before they reach the engine, and harm nothing that is there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as pb

from tests.contract.index.refusing import Code, refused, settings, there

__all__ = ["settings", "there"]


async def test_limits_of_pages_are_refused_with_the_limit(there: AsyncQdrantClient) -> None:
    for call in (
        there.scroll("c", limit=101),
        there.query_points("c", query=[1.0, 2.0, 3.0], using="a", limit=60, offset=41),
        there.query_points("c", query=[1.0, 2.0, 3.0], using="a", limit=10**12),
        there.query_points(
            "c",
            prefetch=models.Prefetch(query=[1.0, 2.0, 3.0], using="a", limit=101),
            query=models.FusionQuery(fusion="rrf"),
        ),
    ):
        await refused(call, Code.INVALID_ARGUMENT, "at most 100")
    await refused(
        there.query_points("c", query=[1.0, 2.0, 3.0], using="a", limit=0), Code.INVALID_ARGUMENT, "1 or larger"
    )


BAD_QUERIES: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "a wrong dimension": ({"query": [1.0], "using": "a"}, Code.INVALID_ARGUMENT, "expected dim: 3, got 1"),
    "an unknown vector": ({"query": [1.0], "using": "z"}, Code.INVALID_ARGUMENT, "Not existing vector name error: z"),
    "no vector name": ({"query": [1.0, 2.0, 3.0]}, Code.INVALID_ARGUMENT, "Not existing vector name"),
    "NaN": ({"query": [1.0, math.nan, 2.0], "using": "a"}, Code.INVALID_ARGUMENT, "NaN"),
    "an unknown point": ({"query": 77, "using": "a"}, Code.NOT_FOUND, "No point with id 77"),
    "a point without the vector": ({"query": 1, "using": "s"}, Code.NOT_FOUND, "has no vector `s`"),
    "fusion of nothing": ({"query": models.FusionQuery(fusion="rrf")}, Code.INVALID_ARGUMENT, "without prefetches"),
    "weights of others": (
        {
            "prefetch": [models.Prefetch(query=[1.0, 2.0, 3.0], using="a")],
            "query": models.RrfQuery(rrf=models.Rrf(weights=[1.0, 2.0])),
        },
        Code.INVALID_ARGUMENT,
        "2 weights for 1 prefetches",
    ),
    "prefetches without a query": (
        {"prefetch": [models.Prefetch(query=[1.0, 2.0, 3.0], using="a")]},
        Code.INVALID_ARGUMENT,
        "merge the prefetches",
    ),
    "order without an index": (
        {"query": models.OrderByQuery(order_by="n")},
        Code.INVALID_ARGUMENT,
        "No range index for `order_by` key: `n`",
    ),
    "a model": (
        {"query": models.Document(text="x", model="some/model"), "using": "a"},
        Code.UNIMPLEMENTED,
        "'some/model'",
    ),
    "an image": (
        {"query": models.Image(image="http://x/y.png", model="clip"), "using": "a"},
        Code.UNIMPLEMENTED,
        "image",
    ),
    "an unknown option": (
        {"query": models.Document(text="x", model="qdrant/bm25", options={"kk": 1}), "using": "s"},
        Code.INVALID_ARGUMENT,
        "unknown option 'kk'",
    ),
    "an unknown lookup": (
        {"query": 1, "using": "a", "lookup_from": models.LookupLocation(collection="nope")},
        Code.NOT_FOUND,
        "`nope`",
    ),
    "a shard key": ({"query": [1, 2, 3], "using": "a", "shard_key_selector": "k"}, Code.UNIMPLEMENTED, "shard_key"),
    "an ef of 0": (
        {"query": [1, 2, 3], "using": "a", "search_params": models.SearchParams(hnsw_ef=0)},
        Code.INVALID_ARGUMENT,
        "hnsw_ef",
    ),
    "a diversity of 2": (
        {"query": models.NearestQuery(nearest=[1, 2, 3], mmr=models.Mmr(diversity=2.0)), "using": "a"},
        Code.INVALID_ARGUMENT,
        "diversity",
    ),
    "an unknown vector to return": (
        {"query": [1, 2, 3], "using": "a", "with_vectors": ["z"]},
        Code.INVALID_ARGUMENT,
        "Not existing vector name",
    ),
    "a bad key to return": (
        {"query": [1, 2, 3], "using": "a", "with_payload": ["a["]},
        Code.INVALID_ARGUMENT,
        "path into a payload",
    ),
}


async def test_a_bad_query_is_refused(there: AsyncQdrantClient, subtests: pytest.Subtests) -> None:
    for case, (query, code, words) in BAD_QUERIES.items():
        with subtests.test(case):
            await refused(there.query_points("c", **query), code, words)


BAD_CONDITIONS: dict[str, tuple[pb.Condition, str]] = {
    "no kind": (pb.Condition(), "no kind"),
    "no match": (pb.Condition(field=pb.FieldCondition(key="a")), "says nothing"),
    "an empty match": (pb.Condition(field=pb.FieldCondition(key="a", match=pb.Match())), "no kind"),
    "a bad path": (pb.Condition(field=pb.FieldCondition(key="a[", match=pb.Match(integer=1))), "path into a payload"),
    "no path": (pb.Condition(is_null=pb.IsNullCondition()), "path into a payload"),
    "NaN": (pb.Condition(field=pb.FieldCondition(key="a", range=pb.Range(gt=math.nan))), "NaN"),
    "off the globe": (
        pb.Condition(
            field=pb.FieldCondition(key="a", geo_radius=pb.GeoRadius(center=pb.GeoPoint(lon=200, lat=0), radius=1))
        ),
        "longitude",
    ),
    "an open ring": (
        pb.Condition(field=pb.FieldCondition(key="a", geo_polygon=pb.GeoPolygon(exterior=pb.GeoLineString()))),
        "ring",
    ),
    "a slice past the end": (pb.Condition(slice=pb.SliceCondition(total=2, index=2)), "below total"),
    "a bad id": (pb.Condition(has_id=pb.HasIdCondition(has_id=[pb.PointId(uuid="x")])), "UUID"),
    "two at once": (
        pb.Condition(field=pb.FieldCondition(key="a", match=pb.Match(integer=1), range=pb.Range(gt=1))),
        "condition of its own",
    ),
}


async def test_a_bad_condition_is_refused(
    there: AsyncQdrantClient, stub: Callable[[str], Any], subtests: pytest.Subtests
) -> None:
    for case, (condition, words) in BAD_CONDITIONS.items():
        with subtests.test(case):
            chosen = pb.Filter(must=[condition])
            fields = await refused(
                stub("Points").Count(pb.CountPoints(collection_name="c", filter=chosen)), Code.INVALID_ARGUMENT, words
            )
            assert fields[0].startswith("filter.must[0]")
            request = pb.DeletePoints(collection_name="c", points=pb.PointsSelector(filter=chosen))
            await refused(stub("Points").Delete(request), Code.INVALID_ARGUMENT, words)
