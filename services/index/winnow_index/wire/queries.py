"""Queries: what to score by, over what, and what to give back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import qdrant_edge as edge
from google.protobuf.message import Message
from qdrant_client import grpc as pb

from winnow_index.definition import PayloadIndex
from winnow_index.engine import PointId, dbsf, rrf
from winnow_index.schema import Limits, VectorSchema
from winnow_index.wire import filters, formulas, ids, refusals, vectors
from winnow_rpc.faults import InvalidArgument, Unimplemented, quoted

# Qdrant's defaults.
_LIMIT = 10
_RRF_K = 2
_DIVERSITY = 0.5
_DEEPEST = 8

VectorLookup = Callable[[str, PointId, str, str], vectors.EngineVector]
"""(collection or "" for this one, id, vector name, field) → the stored vector; raises NotFound."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a query is checked against and resolved with."""

    collection: str
    schema: VectorSchema
    indexes: Mapping[str, PayloadIndex]
    limits: Limits
    lookup: VectorLookup
    exact_filters: bool
    """Score filtered searches without the graph: it is older than a payload index and would lose results."""


@dataclass(frozen=True)
class _Scoring:
    query: Any
    """The engine's query; None asks for points in the order of their ids."""
    used: frozenset[PointId] = frozenset()
    """Points of this collection that the query was made of; they are no results."""


@dataclass(frozen=True)
class _Input:
    vector: vectors.EngineVector
    used: frozenset[PointId]


class QueryReader:
    """Reads one query, with all its prefetches."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def read(
        self,
        message: pb.QueryPoints,
        *,
        limit: int | None = None,
        extra: edge.Filter | None = None,
        prefetch_factor: int = 1,
    ) -> edge.QueryRequest:
        """The engine's request. `limit` overrides the message's; `extra` must be met besides its filter."""
        wanted = limit if limit is not None else self._limit(message, "limit")
        if limit is None:
            refusals.limit_too_large(limit=wanted, offset=message.offset, limits=self._scope.limits)
        parts = self._parts(message, field="", depth=0, extra=extra, prefetch_factor=prefetch_factor)
        return edge.QueryRequest(
            limit=wanted,
            offset=message.offset,
            with_vector=with_vectors(message, self._scope.schema),
            with_payload=with_payload(message, default=False),
            **parts,
        )

    def _parts(
        self, message: Any, *, field: str, depth: int, extra: edge.Filter | None = None, prefetch_factor: int = 1
    ) -> dict[str, Any]:
        """What a query and a prefetch have in common."""
        if depth > _DEEPEST:
            raise InvalidArgument(
                f"{field}: prefetches nest deeper than {_DEEPEST} levels", field=field, reason="TOO_DEEP"
            )
        prefix = f"{field}." if field else ""
        prefetches = [
            self._prefetch(each, f"{prefix}prefetch[{n}]", depth + 1, prefetch_factor)
            for n, each in enumerate(message.prefetch)
        ]
        scoring = self._scoring(message, has_prefetches=bool(prefetches), field=f"{prefix}query")
        own = filters.from_wire(message.filter, f"{prefix}filter") if message.HasField("filter") else None
        condition = filters.excluding(filters.both(own, extra), set(scoring.used))
        threshold = message.score_threshold if message.HasField("score_threshold") else None
        if threshold is not None and math.isnan(threshold):
            raise InvalidArgument(
                f"{prefix}score_threshold must be a number", field=f"{prefix}score_threshold", reason="NOT_FINITE"
            )
        return {
            "prefetches": prefetches,
            "query": scoring.query,
            "filter": condition,
            "score_threshold": threshold,
            "params": self._params(message, f"{prefix}params", filtered=condition is not None),
        }

    def _prefetch(self, message: pb.PrefetchQuery, field: str, depth: int, factor: int) -> edge.Prefetch:
        limit = self._limit(message, f"{field}.limit")
        refusals.limit_too_large(limit=limit, offset=0, limits=self._scope.limits, field=f"{field}.limit")
        parts = self._parts(message, field=field, depth=depth, prefetch_factor=factor)
        return edge.Prefetch(limit=min(limit * factor, self._scope.limits.max_limit), **parts)

    def _limit(self, message: Any, field: str) -> int:
        return at_least_one(message.limit, field) if message.HasField("limit") else _LIMIT

    def _params(self, message: Any, field: str, *, filtered: bool) -> edge.SearchParams | None:
        forced = filtered and self._scope.exact_filters
        if not message.HasField("params"):
            return edge.SearchParams(exact=True) if forced else None
        if message.params.HasField("idf") and message.using not in self._scope.schema.weighed:
            raise InvalidArgument(
                f"{field}.idf needs a sparse vector with the idf modifier, which {quoted(message.using)} is not",
                field=f"{field}.idf",
                reason="WRONG_VECTOR_KIND",
            )
        return search_params(message.params, field, forced_exact=forced)

    def _scoring(self, message: Any, *, has_prefetches: bool, field: str) -> _Scoring:
        kind = message.query.WhichOneof("variant") if message.HasField("query") else None
        if kind is None:
            if has_prefetches:
                raise InvalidArgument(
                    f"{field}: a query is needed to merge the prefetches", field=field, reason="QUERY_MISSING"
                )
            return _Scoring(None)
        if kind in ("fusion", "rrf", "formula") and not has_prefetches:
            raise InvalidArgument(
                f"{field}: cannot apply {kind} without prefetches", field=field, reason="PREFETCH_MISSING"
            )
        reader = getattr(self, f"_{kind}", None)
        if reader is None:
            raise Unimplemented(f"{field}.{kind} is not offered by this index", reason="QUERY_NOT_OFFERED")
        scoring: _Scoring = reader(getattr(message.query, kind), message, f"{field}.{kind}")
        return scoring

    def _input(self, message: pb.VectorInput, parent: Any, field: str) -> _Input:
        """A vector given, or that of a point which is named by its id."""
        scope = self._scope
        kind = message.WhichOneof("variant")
        if kind is None:
            raise InvalidArgument(
                f"{field}: a vector, an id or a document is missing", field=field, reason="EMPTY_INPUT"
            )
        if kind != "id":
            given = vectors.from_wire(
                message, name=parent.using, schema=scope.schema, limits=scope.limits, field=field, query=True
            )
            return _Input(given, frozenset())
        point_id = ids.from_wire(message.id, f"{field}.id")
        collection, name = "", parent.using
        if parent.HasField("lookup_from"):
            refusals.shard_keys(parent.lookup_from)
            collection = parent.lookup_from.collection_name
            if parent.lookup_from.HasField("vector_name"):
                name = parent.lookup_from.vector_name
        stored = scope.lookup(collection, point_id, name, field)
        vectors.check_stored(stored, name=parent.using, schema=scope.schema, field=field)
        return _Input(stored, frozenset((point_id,)) if collection in ("", scope.collection) else frozenset())

    def _inputs(self, messages: Sequence[pb.VectorInput], parent: Any, field: str) -> list[_Input]:
        return [self._input(each, parent, f"{field}[{n}]") for n, each in enumerate(messages)]

    def _nearest(self, message: pb.VectorInput, parent: Any, field: str) -> _Scoring:
        target = self._input(message, parent, field)
        return _Scoring(edge.Query.Nearest(target.vector, using=parent.using), target.used)

    def _nearest_with_mmr(self, message: pb.NearestInputWithMmr, parent: Any, field: str) -> _Scoring:
        target = self._input(message.nearest, parent, f"{field}.nearest")
        diversity = message.mmr.diversity if message.mmr.HasField("diversity") else _DIVERSITY
        if not 0 <= diversity <= 1:
            raise InvalidArgument(
                f"{field}.mmr.diversity: from 0 to 1, got {diversity}", field=f"{field}.mmr.diversity", reason="BAD_MMR"
            )
        candidates = self._limit(parent, "limit")
        if message.mmr.HasField("candidates_limit"):
            candidates = message.mmr.candidates_limit
            refusals.limit_too_large(
                limit=candidates, offset=0, limits=self._scope.limits, field=f"{field}.mmr.candidates_limit"
            )
        mmr = edge.Mmr(target.vector, 1.0 - diversity, candidates, using=parent.using)
        return _Scoring(mmr, target.used)

    def _recommend(self, message: pb.RecommendInput, parent: Any, field: str) -> _Scoring:
        positive = self._inputs(message.positive, parent, f"{field}.positive")
        negative = self._inputs(message.negative, parent, f"{field}.negative")
        used = frozenset[PointId]().union(*(each.used for each in (*positive, *negative)))
        examples = edge.RecommendQuery([each.vector for each in positive], [each.vector for each in negative])
        if message.strategy in (pb.RecommendStrategy.BestScore, pb.RecommendStrategy.SumScores):
            if not positive and not negative:
                raise InvalidArgument(f"{field}: an example is needed", field=field, reason="EMPTY_INPUT")
            best = message.strategy == pb.RecommendStrategy.BestScore
            make = edge.Query.RecommendBestScore if best else edge.Query.RecommendSumScores
            return _Scoring(make(examples, using=parent.using), used)
        average = vectors.average_example(
            [each.vector for each in positive], [each.vector for each in negative], field=field
        )
        return _Scoring(edge.Query.Nearest(average, using=parent.using), used)

    def _pairs(
        self, message: pb.ContextInput, parent: Any, field: str
    ) -> tuple[list[edge.ContextPair], frozenset[PointId]]:
        pairs, used = [], frozenset[PointId]()
        for n, pair in enumerate(message.pairs):
            positive = self._input(pair.positive, parent, f"{field}.pairs[{n}].positive")
            negative = self._input(pair.negative, parent, f"{field}.pairs[{n}].negative")
            pairs.append(edge.ContextPair(positive.vector, negative.vector))
            used |= positive.used | negative.used
        return pairs, used

    def _discover(self, message: pb.DiscoverInput, parent: Any, field: str) -> _Scoring:
        target = self._input(message.target, parent, f"{field}.target")
        pairs, used = self._pairs(message.context, parent, f"{field}.context")
        query = edge.Query.Discover(edge.DiscoverQuery(target.vector, pairs), using=parent.using)
        return _Scoring(query, target.used | used)

    def _context(self, message: pb.ContextInput, parent: Any, field: str) -> _Scoring:
        pairs, used = self._pairs(message, parent, field)
        if not pairs and parent.using not in self._scope.schema.names():
            # No vector of any pair has been checked against it.
            raise vectors.unknown_vector(parent.using, field)
        return _Scoring(edge.Query.Context(edge.ContextQuery(pairs), using=parent.using), used)

    def _order_by(self, message: pb.OrderBy, _parent: Any, field: str) -> _Scoring:
        return _Scoring(order_by(message, self._scope.indexes, field))

    def _fusion(self, message: int, _parent: Any, field: str) -> _Scoring:
        if message == pb.Fusion.RRF:
            return _Scoring(rrf(_RRF_K, None))
        if message == pb.Fusion.DBSF:
            return _Scoring(dbsf())
        raise Unimplemented(f"{field}: this index fuses by RRF or DBSF", reason="FUSION_NOT_OFFERED")

    def _rrf(self, message: pb.Rrf, parent: Any, field: str) -> _Scoring:
        k = message.k if message.HasField("k") else _RRF_K
        if k < 1:
            raise InvalidArgument(f"{field}.k: at least 1", field=f"{field}.k", reason="BAD_RRF")
        weights = message.weights[:]
        if weights and len(weights) != len(parent.prefetch):
            raise InvalidArgument(
                f"{field}.weights: {len(weights)} weights for {len(parent.prefetch)} prefetches",
                field=f"{field}.weights",
                reason="BAD_RRF",
            )
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise InvalidArgument(
                f"{field}.weights: each is a finite number, 0 or more", field=f"{field}.weights", reason="BAD_RRF"
            )
        return _Scoring(rrf(k, weights))

    def _sample(self, message: int, _parent: Any, field: str) -> _Scoring:
        if message != pb.Sample.Random:
            raise Unimplemented(f"{field}: this index samples at random only", reason="SAMPLE_NOT_OFFERED")
        return _Scoring(edge.Sample.Random)

    def _formula(self, message: pb.Formula, _parent: Any, field: str) -> _Scoring:
        return _Scoring(formulas.from_wire(message, field))

    def _text(self, message: pb.TextQuery, parent: Any, field: str) -> _Scoring:
        index = self._scope.indexes.get(parent.using)
        if index is None or not index.can_score:
            raise InvalidArgument(
                f"{field}: a text query needs a text index with `scoring` on the field that `using` names, "
                f"got {parent.using!r}",
                field="using",
                reason="NO_TEXT_INDEX",
            )
        bm25 = message.bm25
        params = edge.Bm25Params(k=bm25.k if bm25.HasField("k") else None, b=bm25.b if bm25.HasField("b") else None)
        return _Scoring(edge.TextQuery(parent.using, message.query, params))


def at_least_one(value: int, field: str) -> int:
    """The value; raises InvalidArgument if it is 0, as Qdrant does."""
    if value < 1:
        raise InvalidArgument(f"{field}: value {value} invalid, must be 1 or larger", field=field, reason="BAD_LIMIT")
    return value


def search_params(message: pb.SearchParams, field: str, *, forced_exact: bool = False) -> edge.SearchParams:
    """How to search."""
    given: dict[str, Any] = {}
    if message.HasField("hnsw_ef"):
        if not 1 <= message.hnsw_ef <= 1_000_000:
            raise InvalidArgument(
                f"{field}.hnsw_ef: from 1 to 1000000, got {message.hnsw_ef}", field=f"{field}.hnsw_ef", reason="BAD_EF"
            )
        given["hnsw_ef"] = message.hnsw_ef
    if message.HasField("quantization"):
        quantization = message.quantization
        oversampling = quantization.oversampling if quantization.HasField("oversampling") else None
        if oversampling is not None and not 1.0 <= oversampling <= 1000.0:
            raise InvalidArgument(
                f"{field}.quantization.oversampling: from 1 to 1000",
                field=f"{field}.quantization.oversampling",
                reason="BAD_OVERSAMPLING",
            )
        given["quantization"] = edge.QuantizationSearchParams(
            ignore=quantization.ignore,
            rescore=quantization.rescore if quantization.HasField("rescore") else None,
            oversampling=oversampling,
        )
    if message.HasField("acorn"):
        acorn = message.acorn
        selectivity = acorn.max_selectivity if acorn.HasField("max_selectivity") else None
        if selectivity is not None and not 0 <= selectivity <= 1:
            raise InvalidArgument(
                f"{field}.acorn.max_selectivity: from 0 to 1",
                field=f"{field}.acorn.max_selectivity",
                reason="BAD_SELECTIVITY",
            )
        given["acorn"] = edge.AcornSearchParams(enable=acorn.enable, max_selectivity=selectivity)
    if message.HasField("idf"):
        corpus = message.idf.corpus
        given["idf"] = edge.IdfParams(
            filters.from_wire(corpus, f"{field}.idf.corpus") if message.idf.HasField("corpus") else None
        )
    return edge.SearchParams(exact=message.exact or forced_exact, indexed_only=message.indexed_only, **given)


def order_by(message: pb.OrderBy, indexes: Mapping[str, PayloadIndex], field: str) -> edge.OrderBy:
    """An order by payload. Raises InvalidArgument if the field has no index that can order."""
    key = filters.checked_key(message.key, f"{field}.key")
    index = indexes.get(key)
    if index is None or not index.can_order:
        raise InvalidArgument(
            f"Bad request: No range index for `order_by` key: `{key}`. Please create one to use `order_by`",
            field=f"{field}.key",
            reason="NO_RANGE_INDEX",
        )
    start: int | float | str | None = None
    match message.start_from.WhichOneof("value") if message.HasField("start_from") else None:
        case "float":
            start = message.start_from.float
        case "integer":
            start = message.start_from.integer
        case "timestamp":
            start = filters.instant(message.start_from.timestamp, f"{field}.start_from")
        case "datetime":
            start = message.start_from.datetime
    try:
        return edge.OrderBy(
            key, edge.Direction.Desc if message.direction == pb.Direction.Desc else edge.Direction.Asc, start
        )
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{field}.start_from: {start!r} is neither a number nor a date",
            field=f"{field}.start_from",
            reason="BAD_START",
        ) from None


def with_payload(message: Message, *, default: bool) -> Any:
    """Which payload to give back."""
    if not message.HasField("with_payload"):
        return default
    selector: pb.WithPayloadSelector = message.with_payload  # type: ignore[attr-defined]
    match selector.WhichOneof("selector_options"):
        case "enable":
            return selector.enable
        case "include":
            return edge.PayloadSelector.Include(_keys(selector.include.fields, "with_payload.include"))
        case "exclude":
            return edge.PayloadSelector.Exclude(_keys(selector.exclude.fields, "with_payload.exclude"))
        case _:
            return default


def _keys(keys: Sequence[str], field: str) -> list[str]:
    return [filters.checked_key(key, f"{field}[{n}]") for n, key in enumerate(keys)]


def with_vectors(message: Message, schema: VectorSchema) -> bool | list[str]:
    """Which vectors to give back."""
    if not message.HasField("with_vectors"):
        return False
    selector: pb.WithVectorsSelector = message.with_vectors  # type: ignore[attr-defined]
    if selector.WhichOneof("selector_options") == "include":
        names = list(selector.include.names)
        for name in names:
            if name not in schema.dense and name not in schema.sparse:
                raise vectors.unknown_vector(name, "with_vectors.include")
        return names
    return bool(selector.enable)
