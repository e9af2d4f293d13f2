"""Vectors: dense, sparse, multi, and text that BM25 turns into a sparse one."""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import qdrant_edge as edge
from qdrant_client import grpc as pb

from winnow_index.schema import Limits, VectorSchema
from winnow_index.wire import bm25
from winnow_rpc.faults import InvalidArgument, Unimplemented

EngineVector = list[float] | list[list[float]] | edge.SparseVector


def unknown_vector(name: str, field: str) -> InvalidArgument:
    """The fault for a vector name that the collection does not have."""
    return InvalidArgument(
        f"Wrong input: Not existing vector name error: {name}", field=field, reason="UNKNOWN_VECTOR_NAME"
    )


def _check_finite(data: list[float], field: str) -> None:
    # float32 values cannot overflow a sum of doubles, so the sum is finite exactly if every value is.
    if not math.isfinite(sum(data)):
        raise InvalidArgument(f"{field}: a vector must not hold NaN or infinity", field=field, reason="NOT_FINITE")


def _check_dimension(expected: int, got: int, field: str) -> None:
    if expected != got:
        raise InvalidArgument(
            f"Wrong input: Vector dimension error: expected dim: {expected}, got {got}",
            field=field,
            reason="WRONG_DIMENSION",
            metadata={"expected": str(expected), "got": str(got)},
        )


def _dense(data: list[float], size: int, field: str) -> list[float]:
    _check_dimension(size, len(data), field)
    _check_finite(data, field)
    return data


def _sparse(indices: list[int], values: list[float], field: str) -> edge.SparseVector:
    if len(indices) != len(values):
        raise InvalidArgument(
            f"{field}: a sparse vector has {len(indices)} indices and {len(values)} values; "
            "there must be as many of one as of the other",
            field=field,
            reason="BAD_SPARSE_VECTOR",
        )
    if len(set(indices)) != len(indices):
        raise InvalidArgument(
            f"{field}: the indices of a sparse vector must be unique", field=field, reason="BAD_SPARSE_VECTOR"
        )
    _check_finite(values, field)
    if any(a > b for a, b in itertools.pairwise(indices)):
        order = sorted(range(len(indices)), key=indices.__getitem__)
        indices, values = [indices[n] for n in order], [values[n] for n in order]
    return edge.SparseVector(indices, values)


def _multi(rows: list[list[float]], size: int, *, limits: Limits, field: str) -> list[list[float]]:
    if not rows:
        raise InvalidArgument(f"{field}: a multivector must hold a vector", field=field, reason="EMPTY_MULTIVECTOR")
    if len(rows) > limits.max_vectors:
        raise InvalidArgument(
            f"{field}: a multivector holds {len(rows)} vectors, at most {limits.max_vectors} are taken",
            field=field,
            reason="TOO_MANY_VECTORS",
        )
    return [_dense(row, size, f"{field}[{n}]") for n, row in enumerate(rows)]


def refuse_model_input(kind: str, field: str) -> Unimplemented:
    """The fault for an input that only a model could turn into a vector."""
    return Unimplemented(
        f"{field}: inference on an {kind} is not offered by this index", reason="INFERENCE_NOT_OFFERED"
    )


def from_wire(
    message: pb.Vector | pb.VectorInput,
    *,
    name: str,
    schema: VectorSchema,
    limits: Limits,
    field: str,
    query: bool = False,
) -> EngineVector:
    """A vector for the named field of a collection, from an upsert's `Vector` or a query's `VectorInput` (not an id).

    Raises InvalidArgument on a wrong name, kind, dimension or value, Unimplemented for a model's input.
    """
    kind = message.WhichOneof("vector") if isinstance(message, pb.Vector) else message.WhichOneof("variant")
    if kind in ("image", "object"):
        raise refuse_model_input(kind, field)
    if name in schema.sparse:
        if kind == "document":
            return bm25.embed(message.document, field=field, query=query)
        if kind == "sparse":
            return _sparse(message.sparse.indices[:], message.sparse.values[:], field)
        if kind is None and isinstance(message, pb.Vector) and message.HasField("indices"):
            return _sparse(message.indices.data[:], message.data[:], field)
        raise InvalidArgument(
            f"Wrong input: Conversion between sparse and regular vectors failed for `{name}`, which is sparse",
            field=field,
            reason="WRONG_VECTOR_KIND",
        )
    dense = schema.dense.get(name)
    if dense is None:
        raise unknown_vector(name, field)
    if kind == "document":
        # A BM25 text in a dense field: the model decides whether it is refused as unknown or as misplaced.
        bm25.embed(message.document, field=field, query=query)
    rows = _rows(message, kind)
    if rows is None:
        raise InvalidArgument(
            f"Wrong input: Conversion between sparse and regular vectors failed for `{name}`, which is dense",
            field=field,
            reason="WRONG_VECTOR_KIND",
        )
    if dense.multi:
        return _multi(rows, dense.size, limits=limits, field=field)
    if len(rows) != 1:
        raise InvalidArgument(
            f"Wrong input: Conversion between multi and regular vectors failed for `{name}`",
            field=field,
            reason="WRONG_VECTOR_KIND",
        )
    return _dense(rows[0], dense.size, field)


def _rows(message: pb.Vector | pb.VectorInput, kind: str | None) -> list[list[float]] | None:
    """The rows of a dense or multi vector; None if the message is neither."""
    if kind == "dense":
        return [message.dense.data[:]]
    if kind == "multi_dense":
        return [row.data[:] for row in message.multi_dense.vectors]
    if kind is not None or not isinstance(message, pb.Vector) or message.HasField("indices"):
        return None
    # The older form, which clients before 1.15 send.
    flat, count = message.data[:], message.vectors_count if message.HasField("vectors_count") else 1
    if count < 1 or len(flat) % count:
        return None
    width = len(flat) // count
    return [flat[n * width : (n + 1) * width] for n in range(count)]


def named_from_wire(
    message: pb.Vectors, *, schema: VectorSchema, limits: Limits, field: str
) -> dict[str, EngineVector]:
    """The vectors of one point by name. The single form fills the default vector."""
    kind = message.WhichOneof("vectors_options")
    if kind == "vector":
        if "" not in schema.dense and "" not in schema.sparse:
            raise unknown_vector("", field)
        return {"": from_wire(message.vector, name="", schema=schema, limits=limits, field=field)}
    return {
        name: from_wire(vector, name=name, schema=schema, limits=limits, field=f"{field}.{name}")
        for name, vector in message.vectors.vectors.items()
    }


def _fill(target: pb.VectorOutput, vector: Any) -> None:
    if isinstance(vector, edge.SparseVector):
        target.sparse.SetInParent()
        target.sparse.indices.extend(vector.indices)
        target.sparse.values.extend(vector.values)
    elif vector and isinstance(vector[0], list):
        for row in vector:
            target.multi_dense.vectors.add().data.extend(row)
    else:
        target.dense.data.extend(vector)


def fill_output(target: pb.VectorsOutput, vectors: Any) -> None:
    """Writes a point's vectors, as the engine gives them, into a message: one unnamed, or a map by name."""
    if isinstance(vectors, dict):
        if set(vectors) == {""}:
            _fill(target.vector, vectors[""])
            return
        target.vectors.SetInParent()
        for name, vector in vectors.items():
            _fill(target.vectors.vectors[name], vector)
    else:
        _fill(target.vector, vectors)


def by_name(vectors: Any) -> dict[str, EngineVector]:
    """A point's vectors, as the engine gives them, by name."""
    if vectors is None:
        return {}
    return cast("dict[str, EngineVector]", vectors if isinstance(vectors, dict) else {"": vectors})


def check_stored(vector: EngineVector, *, name: str, schema: VectorSchema, field: str) -> None:
    """Raises InvalidArgument if a vector that was looked up, perhaps elsewhere, does not fit the named field."""
    if name in schema.sparse:
        if not isinstance(vector, edge.SparseVector):
            raise InvalidArgument(
                f"{field}: the vector that was looked up is dense, `{name}` is sparse",
                field=field,
                reason="WRONG_VECTOR_KIND",
            )
        return
    dense = schema.dense.get(name)
    if dense is None:
        raise unknown_vector(name, field)
    if isinstance(vector, edge.SparseVector) or dense.multi != isinstance(vector[0], list):
        raise InvalidArgument(
            f"{field}: the vector that was looked up is of another kind than `{name}`",
            field=field,
            reason="WRONG_VECTOR_KIND",
        )
    row = vector[0] if isinstance(vector[0], list) else vector
    _check_dimension(dense.size, len(row), field)


def average_example(positive: list[EngineVector], negative: list[EngineVector], *, field: str) -> EngineVector:
    """The query vector of Qdrant's `average_vector` strategy: `2 * mean(positive) - mean(negative)`, or the mean of the
    positive alone where there is nothing negative.
    """
    if not positive:
        raise InvalidArgument(
            f"{field}.positive: the average_vector strategy needs an example",
            field=f"{field}.positive",
            reason="EMPTY_INPUT",
        )
    rows = [row for row in (*positive, *negative) if isinstance(row, edge.SparseVector) or isinstance(row[0], list)]
    if rows:
        raise Unimplemented(
            f"{field}: averages of sparse and multi vectors are not offered; use best_score or sum_scores",
            reason="QUERY_NOT_OFFERED",
        )
    wanted = _mean(cast("list[list[float]]", positive))
    if not negative:
        return wanted
    unwanted = _mean(cast("list[list[float]]", negative))
    return [2 * a - b for a, b in zip(wanted, unwanted, strict=True)]


def _mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
