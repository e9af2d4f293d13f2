"""Conversions lose nothing on the way there and back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc as pb

from winnow_index.definition import Definition
from winnow_index.schema import DenseField, Limits, VectorSchema
from winnow_index.wire import bm25, configs, filters, ids, indexes, payloads, refusals, vectors
from winnow_index.wire.definitions import JsonCodec, WireConfiguration, message_of
from winnow_rpc.faults import InvalidArgument, Unimplemented

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
SCHEMA = VectorSchema(dense={"d": DenseField(3), "m": DenseField(2, multi=True)}, sparse=frozenset({"s"}))


@given(st.integers(0, 2**64 - 1) | st.uuids())
def test_ids_round_trip(point_id: int | UUID) -> None:
    assert ids.from_wire(ids.to_wire(point_id), "id") == point_id


@given(st.dictionaries(keys, json_values, max_size=5))
def test_payloads_round_trip(payload: dict[str, Any]) -> None:
    point = pb.PointStruct()
    payloads.fill(point.payload, payload)
    # Through bytes, as it travels.
    assert payloads.from_wire(pb.PointStruct.FromString(point.SerializeToString()).payload, "payload") == payload


@given(
    st.lists(floats, min_size=3, max_size=3),
    st.lists(st.lists(floats, min_size=2, max_size=2), min_size=1, max_size=3),
    st.dictionaries(st.integers(0, 2**32 - 1), floats, max_size=5),
)
def test_vectors_round_trip(dense: list[float], multi: list[list[float]], sparse: dict[int, float]) -> None:
    named: Any = {"d": dense, "m": multi, "s": edge.SparseVector(list(sparse), list(sparse.values()))}
    output = pb.VectorsOutput()
    vectors.fill_output(output, named)
    given_back = pb.Vectors.FromString(output.SerializeToString())
    read: Any = vectors.named_from_wire(given_back, schema=SCHEMA, limits=Limits(), field="v")
    assert read["d"] == dense
    assert read["m"] == multi
    assert dict(zip(read["s"].indices, read["s"].values, strict=True)) == sparse
    assert list(read["s"].indices) == sorted(sparse)


def _create() -> pb.CreateCollection:
    quantization = pb.QuantizationConfig(scalar=pb.ScalarQuantization(type=pb.QuantizationType.Int8, quantile=0.99))
    params = pb.VectorParams(
        size=4, distance=pb.Distance.Cosine, quantization_config=quantization, hnsw_config=pb.HnswConfigDiff(m=32)
    )
    request = pb.CreateCollection(
        collection_name="c",
        vectors_config=pb.VectorsConfig(params_map=pb.VectorParamsMap(map={"d": params})),
        sparse_vectors_config=pb.SparseVectorConfig(map={"s": pb.SparseVectorParams(modifier=pb.Modifier.Idf)}),
        hnsw_config=pb.HnswConfigDiff(m=8),
        optimizers_config=pb.OptimizersConfigDiff(indexing_threshold=77),
    )
    payloads.fill(request.metadata, {"fingerprint": "abc", "n": 2**60, "list": [1.5, None]})
    return request


def test_definitions_round_trip_through_json() -> None:
    import json

    configuration = WireConfiguration(configs.from_create(_create(), limits=Limits(), indexing_threshold=10_000))
    text = pb.CreateFieldIndexCollection(
        field_name="t",
        field_index_params=pb.PayloadIndexParams(
            text_index_params=pb.TextIndexParams(tokenizer=pb.TokenizerType.Word, lowercase=True)
        ),
    )
    definition = Definition(
        name="ü",
        configuration=configuration,
        indexes={"t": indexes.from_wire(text), "k": indexes.IndexRequest("keyword", None)},
        created_at=12.5,
        graph_revision=3,
        graph_lags=True,
    )
    codec = JsonCodec()
    read = codec.decode(json.loads(json.dumps(codec.encode(definition))))
    assert message_of(read) == message_of(definition)
    assert dict(read.indexes) == dict(definition.indexes)
    assert (read.name, read.created_at, read.graph_revision, read.graph_lags) == ("ü", 12.5, 3, True)
    assert read.configuration.schema == VectorSchema(
        dense={"d": DenseField(4)}, sparse=frozenset({"s"}), weighed=frozenset({"s"})
    )


def test_what_is_not_said_is_qdrants_default_and_what_is_said_stays() -> None:
    config = configs.from_create(_create(), limits=Limits(), indexing_threshold=10_000)
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (8, 100)
    assert (config.optimizer_config.indexing_threshold, config.optimizer_config.deleted_threshold) == (77, 0.2)
    dense = pb.VectorsConfig(params=pb.VectorParams(size=2, distance=pb.Distance.Dot))
    request = pb.CreateCollection(collection_name="c", vectors_config=dense)
    plain = configs.from_create(request, limits=Limits(), indexing_threshold=5)
    assert plain.optimizer_config.indexing_threshold == 5


def test_another_revision_of_the_graph_differs_in_every_graph_and_nothing_else() -> None:
    config = configs.from_create(_create(), limits=Limits(), indexing_threshold=10_000)
    even, odd = (configs.to_engine(config, graph_revision=n) for n in (4, 5))
    assert odd.hnsw_config is not None
    assert even.hnsw_config is not None
    assert odd.hnsw_config.ef_construct == even.hnsw_config.ef_construct + 1
    own = [each.vectors["d"].hnsw_config for each in (even, odd)]
    assert [graph.ef_construct for graph in own if graph] == [100, 101]
    assert [graph.m for graph in own if graph] == [32, 32]


def test_an_update_merges_metadata_and_leaves_the_rest() -> None:
    config = configs.from_create(_create(), limits=Limits(), indexing_threshold=10_000)
    update = pb.UpdateCollection(hnsw_config=pb.HnswConfigDiff(ef_construct=200))
    payloads.fill(update.metadata, {"n": None, "more": True})
    changed = configs.apply_update(config, update, Limits())
    assert payloads.from_wire(changed.metadata, "m") == {"fingerprint": "abc", "list": [1.5, None], "more": True}
    assert (changed.hnsw_config.m, changed.hnsw_config.ef_construct) == (8, 200)
    assert config.hnsw_config.ef_construct == 100


@pytest.mark.parametrize("kind", ["keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"])
def test_every_type_of_index_has_an_engine_form_and_a_name_of_its_own(kind: str) -> None:
    index = indexes.IndexRequest(kind, None)
    assert index.engine_schema() is not None
    assert pb.PayloadSchemaType.Name(index.info(3).data_type).lower() == kind
    assert indexes.from_document(index.document()) == index


def test_a_filter_may_not_nest_without_end() -> None:
    message = pb.Filter()
    inner = message
    for _ in range(20):
        inner = inner.must.add().filter
    with pytest.raises(InvalidArgument, match="nest deeper"):
        filters.from_wire(message)


def test_a_message_of_a_newer_protocol_is_refused() -> None:
    request = pb.CountPoints.FromString(pb.CountPoints(collection_name="c").SerializeToString() + b"\xa0\x06\x01")
    with pytest.raises(Unimplemented):
        refusals.unknown_fields(request)
    refusals.unknown_fields(pb.CountPoints(collection_name="c"))


def test_bm25_takes_its_options_and_tells_documents_from_queries() -> None:
    document = pb.Document(text="The quick brown foxes", model="qdrant/bm25")
    stored = bm25.embed(document, field="f", query=False)
    asked = bm25.embed(document, field="f", query=True)
    assert sorted(stored.indices) == sorted(asked.indices)
    assert set(asked.values) == {1.0}
    assert set(stored.values) != {1.0}
    payloads.fill(document.options, {"language": "german", "k": 2.0})
    assert sorted(bm25.embed(document, field="f", query=False).indices) != sorted(stored.indices)
