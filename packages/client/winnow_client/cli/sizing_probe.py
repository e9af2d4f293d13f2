"""Asks running model services what work costs them, two seconds a kind: as bulk work, behind what people wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import grpc

from winnow.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_client.cli.sizing import Costs
from winnow_rpc.faults import Fault, Unavailable
from winnow_rpc.status import fault_from_rpc_error

_SECONDS = 2.0
_AT_ONCE = 4
_TEXTS = 32
_SENTENCE = "Water for green tea should be hot but not boiling, since boiling water makes the leaves taste bitter. "
_PASSAGE = _SENTENCE * 6
_QUERY = "how hot should the water for green tea be?"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the services said."""

    costs: Costs
    dimension: int
    """Of the embedder's vectors."""
    model_tokens: int
    """That the embedder reads of a text."""


async def probe(known: Costs, *, embedder: str, reranker: str, timeout: float) -> Probed:
    """Measures one embedder and one reranker, which must have nothing else to do.

    Raises the fault of a service that cannot be reached or refuses.
    """
    try:
        async with grpc.aio.insecure_channel(embedder) as channel, grpc.aio.insecure_channel(reranker) as other:
            embed = embedder_pb2_grpc.EmbedderServiceStub(channel)
            rerank = reranker_pb2_grpc.RerankerServiceStub(other)
            model = (await embed.GetModel(embedder_pb2.GetModelRequest(), timeout=timeout)).model
            engine = (await rerank.GetModel(reranker_pb2.GetModelRequest(), timeout=timeout)).model.engine
            bulk, query = _embedding(embed, timeout, bulk=True), _embedding(embed, timeout, bulk=False)
            costs = replace(
                known,
                source=f"asked: embedder on {_described(model.engine)}, reranker on {_described(engine)}",
                embed_seconds_per_token=await _seconds_each(bulk),
                embed_query_seconds=await _seconds_each(query),
                rerank_seconds_per_token=await _seconds_each(_reranking(rerank, timeout)),
            )
    except grpc.aio.AioRpcError as error:
        raise _explained(fault_from_rpc_error(error), embedder, reranker) from error
    return Probed(costs=costs, dimension=model.dimension, model_tokens=model.max_token_count)


def _described(engine: embedder_pb2.Engine | reranker_pb2.Engine) -> str:
    return f"{engine.device} by {engine.name} in {engine.dtype}"


def _explained(fault: Fault, embedder: str, reranker: str) -> Fault:
    if not isinstance(fault, Unavailable):
        return fault
    return Unavailable(
        f"the model services cannot be asked at {embedder} and {reranker}: {fault.message}", reason=fault.reason
    )


def _embedding(
    stub: embedder_pb2_grpc.EmbedderServiceAsyncStub, timeout: float, *, bulk: bool
) -> Callable[[], Awaitable[int]]:
    """A call, and what it got done: tokens of bulk work, or one query."""
    options = embedder_pb2.EmbedOptions(
        input_type=embedder_pb2.INPUT_TYPE_PASSAGE if bulk else embedder_pb2.INPUT_TYPE_QUERY,
        priority=embedder_pb2.PRIORITY_BULK,
    )
    request = embedder_pb2.EmbedTextsRequest(texts=[_PASSAGE] * _TEXTS if bulk else [_QUERY], options=options)

    async def call() -> int:
        report = (await stub.EmbedTexts(request, timeout=timeout)).report
        return report.token_count if bulk else 1

    return call


def _reranking(stub: reranker_pb2_grpc.RerankerServiceAsyncStub, timeout: float) -> Callable[[], Awaitable[int]]:
    options = reranker_pb2.RerankOptions(priority=reranker_pb2.PRIORITY_BULK)
    request = reranker_pb2.RerankDocumentsRequest(query=_QUERY, documents=[_PASSAGE] * _TEXTS, options=options)

    async def call() -> int:
        return (await stub.RerankDocuments(request, timeout=timeout)).report.token_count

    return call


async def _seconds_each(call: Callable[[], Awaitable[int]]) -> float:
    """Seconds for one unit of what a call gets done, with several calls at once, so that the service never rests."""
    await call()  # the first of its kind may be slower
    began = time.perf_counter()
    done = 0

    async def work() -> None:
        nonlocal done
        while time.perf_counter() - began < _SECONDS:
            got = await call()
            done += got

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return (time.perf_counter() - began) / done
