"""Collection configuration: Qdrant's messages, their JSON form on disk, and the engine's configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import qdrant_edge as edge
from google.protobuf import json_format
from google.protobuf.message import Message
from qdrant_client import grpc as pb

from winnow_index.schema import DenseField, Limits, VectorSchema
from winnow_rpc.faults import InvalidArgument, Unimplemented

_MEMORY = {1: edge.Memory.Cold, 2: edge.Memory.Cached, 3: edge.Memory.Pinned}
_DISTANCES = {
    pb.Distance.Cosine: edge.Distance.Cosine,
    pb.Distance.Euclid: edge.Distance.Euclid,
    pb.Distance.Dot: edge.Distance.Dot,
    pb.Distance.Manhattan: edge.Distance.Manhattan,
}
# By the numbers of the protocol's enums; 0 is the engine's default.
_DATATYPES = {
    1: edge.VectorStorageDatatype.Float32,
    2: edge.VectorStorageDatatype.Uint8,
    3: edge.VectorStorageDatatype.Float16,
    5: edge.VectorStorageDatatype.Turbo8,
    6: edge.VectorStorageDatatype.Turbo16,
}
_COMPRESSIONS = ("X4", "X8", "X16", "X32", "X64")
_ENCODINGS = ("OneBit", "TwoBits", "OneAndHalfBits")
_QUERY_ENCODINGS = ("Default", "Binary", "Scalar4Bits", "Scalar8Bits")
_TURBO_BITS = ("Bits1", "Bits1_5", "Bits2", "Bits4", "Bits8")

# Qdrant's own defaults.
_HNSW: dict[str, Any] = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0}
_OPTIMIZERS: dict[str, Any] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}

MessageT = TypeVar("MessageT", bound=Message)


def from_create(request: pb.CreateCollection, *, limits: Limits, indexing_threshold: int) -> pb.CollectionConfig:
    """The whole configuration of a new collection, defaults filled in.

    Raises InvalidArgument on contradictions, Unimplemented on what one embedded shard cannot honour.
    """
    # Fields are named by variables below, which the generated types do not allow.
    message: Any = request
    _refuse_cluster(message)
    config = pb.CollectionConfig(
        params=pb.CollectionParams(
            shard_number=1, replication_factor=1, write_consistency_factor=1, on_disk_payload=True
        ),
        hnsw_config=pb.HnswConfigDiff(**_HNSW),
        optimizer_config=pb.OptimizersConfigDiff(**_OPTIMIZERS, indexing_threshold=indexing_threshold),
        wal_config=pb.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0, wal_retain_closed=1),
    )
    params = config.params
    if message.HasField("on_disk_payload"):
        params.on_disk_payload = message.on_disk_payload
    for name in ("vectors_config", "sparse_vectors_config", "payload", "id_tracker"):
        if message.HasField(name):
            getattr(params, name).CopyFrom(getattr(message, name))
    for name in ("hnsw_config", "wal_config"):
        if message.HasField(name):
            getattr(config, name).MergeFrom(getattr(message, name))
    if message.HasField("optimizers_config"):
        config.optimizer_config.MergeFrom(message.optimizers_config)
    if message.HasField("quantization_config"):
        config.quantization_config.CopyFrom(message.quantization_config)
    for key, value in message.metadata.items():
        config.metadata[key].CopyFrom(value)
    validate(config, limits)
    return config


def _refuse_cluster(message: Any) -> None:
    """One shard, one copy: more would be a promise that nobody keeps."""
    for name, most in (("shard_number", 1), ("replication_factor", 1), ("write_consistency_factor", 1)):
        if message.HasField(name) and getattr(message, name) > most:
            raise Unimplemented(
                f"{name}: this index is one shard in one process; use a Qdrant cluster for more",
                reason="CLUSTER_NOT_OFFERED",
            )
    if message.HasField("sharding_method") and message.sharding_method != pb.ShardingMethod.Auto:
        raise Unimplemented("sharding_method: this index has one shard and no shard keys", reason="CLUSTER_NOT_OFFERED")
    if message.HasField("strict_mode_config") and message.strict_mode_config.enabled:
        raise Unimplemented(
            "strict_mode_config: this index does not enforce strict mode", reason="STRICT_MODE_NOT_OFFERED"
        )


def apply_update(config: pb.CollectionConfig, message: pb.UpdateCollection, limits: Limits) -> pb.CollectionConfig:
    """The configuration after an update of hnsw_config, optimizers_config, quantization_config or metadata.

    Metadata is merged key by key; a null removes its key. Raises Unimplemented for every other part.
    """
    for name in ("params", "vectors_config", "sparse_vectors_config", "strict_mode_config"):
        if message.HasField(name):
            raise Unimplemented(f"{name}: cannot be changed in this index", reason="UPDATE_NOT_OFFERED")
    changed = pb.CollectionConfig()
    changed.CopyFrom(config)
    if message.HasField("hnsw_config"):
        changed.hnsw_config.MergeFrom(message.hnsw_config)
    if message.HasField("optimizers_config"):
        changed.optimizer_config.MergeFrom(message.optimizers_config)
    if message.HasField("quantization_config"):
        which = message.quantization_config.WhichOneof("quantization")
        if which == "disabled":
            changed.ClearField("quantization_config")
        elif which is not None:
            getattr(changed.quantization_config, which).CopyFrom(getattr(message.quantization_config, which))
    for key, value in message.metadata.items():
        if value.WhichOneof("kind") in (None, "null_value"):
            changed.metadata.pop(key, None)
        else:
            changed.metadata[key].CopyFrom(value)
    validate(changed, limits)
    return changed


def validate(config: pb.CollectionConfig, limits: Limits) -> None:
    """Raises InvalidArgument or Unimplemented if the engine could not be configured so."""
    vectors = _dense_params(config)
    sparse = config.params.sparse_vectors_config.map
    if not vectors and not sparse:
        raise Unimplemented("vectors_config: this index holds no collections without vectors", reason="NO_VECTORS")
    for name, params in vectors.items():
        field = f"vectors_config.{name}" if name else "vectors_config"
        if not 1 <= params.size <= limits.max_dimension:
            raise InvalidArgument(
                f"{field}.size: a dimension is from 1 to {limits.max_dimension}, got {params.size}",
                field=f"{field}.size",
                reason="BAD_DIMENSION",
            )
        if params.distance not in _DISTANCES:
            raise InvalidArgument(
                f"{field}.distance: must be Cosine, Euclid, Dot or Manhattan",
                field=f"{field}.distance",
                reason="BAD_DISTANCE",
            )
    for name in sparse:
        if not name:
            raise InvalidArgument(
                "sparse_vectors_config: a sparse vector needs a name",
                field="sparse_vectors_config",
                reason="BAD_VECTOR_NAME",
            )
        if name in vectors:
            raise InvalidArgument(
                f"vector name {name!r} is used twice, for a dense and a sparse vector",
                field="sparse_vectors_config",
                reason="BAD_VECTOR_NAME",
            )
    hnsw = config.hnsw_config
    if hnsw.ef_construct < 4:
        raise InvalidArgument(
            f"hnsw_config.ef_construct: at least 4, got {hnsw.ef_construct}",
            field="hnsw_config.ef_construct",
            reason="BAD_HNSW",
        )
    if hnsw.m > 10_000:
        raise InvalidArgument(f"hnsw_config.m: at most 10000, got {hnsw.m}", field="hnsw_config.m", reason="BAD_HNSW")
    if not 0 <= config.optimizer_config.deleted_threshold <= 1:
        raise InvalidArgument(
            "optimizers_config.deleted_threshold: a share from 0 to 1",
            field="optimizers_config.deleted_threshold",
            reason="BAD_OPTIMIZERS",
        )
    try:
        to_engine(config, graph_revision=0)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"the configuration is refused: {error}", field="vectors_config", reason="BAD_CONFIG"
        ) from error


def schema_of(config: pb.CollectionConfig) -> VectorSchema:
    """What requests are checked against."""
    return VectorSchema(
        dense={
            name: DenseField(size=params.size, multi=params.HasField("multivector_config"))
            for name, params in _dense_params(config).items()
        },
        sparse=frozenset(config.params.sparse_vectors_config.map),
        weighed=frozenset(
            name
            for name, params in config.params.sparse_vectors_config.map.items()
            if params.modifier == pb.Modifier.Idf
        ),
    )


def to_document(config: pb.CollectionConfig) -> dict[str, Any]:
    """A JSON form that `from_document` reads."""
    document: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return document


def from_document(document: dict[str, Any]) -> pb.CollectionConfig:
    """The configuration whose `to_document` this is. Raises ValueError if it is not one."""
    try:
        return json_format.ParseDict(document, pb.CollectionConfig())
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error


def to_engine(config: pb.CollectionConfig, *, graph_revision: int) -> edge.EdgeConfig:
    """The engine's configuration.

    `graph_revision` changes ef_construct by its parity: that is how the engine is made to build a graph anew, which it
    does only where the graph on disk and the configuration differ.
    """
    bump = graph_revision % 2
    params, optimizers = config.params, config.optimizer_config
    given: dict[str, Any] = {"on_disk_payload": params.on_disk_payload}
    if params.payload.HasField("memory"):
        given["payload_memory"] = _memory(params.payload)
    if params.id_tracker.HasField("memory"):
        given["id_tracker_memory"] = _memory(params.id_tracker)
    if config.HasField("quantization_config"):
        given["quantization_config"] = _quantization(config.quantization_config)
    return edge.EdgeConfig(
        vectors={name: _vector(p, config, bump) for name, p in _dense_params(config).items()},
        sparse_vectors={name: _sparse(p) for name, p in params.sparse_vectors_config.map.items()},
        hnsw_config=_hnsw(config.hnsw_config, bump),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers.deleted_threshold,
            vacuum_min_vector_number=optimizers.vacuum_min_vector_number,
            default_segment_number=optimizers.default_segment_number,
            max_segment_size=_optional(optimizers, "max_segment_size"),
            indexing_threshold=optimizers.indexing_threshold,
        ),
        **given,
    )


def _dense_params(config: pb.CollectionConfig) -> dict[str, pb.VectorParams]:
    vectors = config.params.vectors_config
    if vectors.WhichOneof("config") == "params":
        return {"": vectors.params}
    return dict(vectors.params_map.map)


def _optional(message: Message, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _memory(message: Any) -> edge.Memory | None:
    if not message.HasField("memory") or message.memory == 0:
        return None
    if message.memory not in _MEMORY:
        raise ValueError(f"memory {message.memory} is unknown")
    return _MEMORY[message.memory]


def _hnsw(message: pb.HnswConfigDiff, bump: int) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=message.m,
        ef_construct=message.ef_construct + bump,
        full_scan_threshold=message.full_scan_threshold,
        max_indexing_threads=message.max_indexing_threads,
        on_disk=_optional(message, "on_disk"),
        payload_m=_optional(message, "payload_m"),
        inline_storage=_optional(message, "inline_storage"),
        memory=_memory(message),
    )


def _vector(params: pb.VectorParams, config: pb.CollectionConfig, bump: int) -> edge.EdgeVectorParams:
    given: dict[str, Any] = {}
    if params.HasField("hnsw_config"):
        merged = pb.HnswConfigDiff()
        merged.CopyFrom(config.hnsw_config)
        merged.MergeFrom(params.hnsw_config)
        given["hnsw_config"] = _hnsw(merged, bump)
    if params.HasField("quantization_config"):
        given["quantization_config"] = _quantization(params.quantization_config)
    if params.HasField("multivector_config"):
        given["multivector_config"] = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    if params.datatype:
        given["datatype"] = _datatype(params.datatype)
    return edge.EdgeVectorParams(
        size=params.size,
        distance=_DISTANCES[params.distance],
        on_disk=_optional(params, "on_disk"),
        memory=_memory(params),
        **given,
    )


def _datatype(number: int) -> edge.VectorStorageDatatype:
    if number not in _DATATYPES:
        raise Unimplemented(f"datatype {number} is not offered by this engine", reason="DATATYPE_NOT_OFFERED")
    return _DATATYPES[number]


def _sparse(params: pb.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    index = params.index
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=_optional(index, "full_scan_threshold"),
        on_disk=_optional(index, "on_disk"),
        modifier=edge.Modifier.Idf if params.modifier == pb.Modifier.Idf else None,
        datatype=_datatype(index.datatype) if index.datatype else None,
        memory=_memory(index),
    )


def _quantization(message: pb.QuantizationConfig) -> Any:
    which = message.WhichOneof("quantization")
    builders: dict[str, Callable[[Any], Any]] = {
        "scalar": lambda m: edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8,
            quantile=_optional(m, "quantile"),
            always_ram=_optional(m, "always_ram"),
            memory=_memory(m),
        ),
        "product": lambda m: edge.ProductQuantizationConfig(
            compression=getattr(edge.CompressionRatio, _COMPRESSIONS[m.compression]),
            always_ram=_optional(m, "always_ram"),
            memory=_memory(m),
        ),
        "binary": lambda m: edge.BinaryQuantizationConfig(
            always_ram=_optional(m, "always_ram"),
            encoding=getattr(edge.BinaryQuantizationEncoding, _ENCODINGS[m.encoding])
            if m.HasField("encoding")
            else None,
            query_encoding=getattr(edge.BinaryQuantizationQueryEncoding, _QUERY_ENCODINGS[m.query_encoding.setting])
            if m.HasField("query_encoding")
            else None,
            memory=_memory(m),
        ),
        "turboquant": lambda m: edge.TurboQuantQuantizationConfig(
            always_ram=_optional(m, "always_ram"),
            bits=getattr(edge.TurboQuantBitSize, _TURBO_BITS[m.bits]) if m.HasField("bits") else None,
            memory=_memory(m),
        ),
    }
    if which is None:
        raise ValueError("quantization_config names no kind")
    if which == "scalar" and message.scalar.type != pb.QuantizationType.Int8:
        raise ValueError("quantization_config.scalar.type must be Int8")
    return builders[which](getattr(message, which))
