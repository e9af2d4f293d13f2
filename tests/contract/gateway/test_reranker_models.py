"""The reranker's model, while one takes the place of another: by the client over a real connection, and in a search."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest

from tests.contract.gateway.calls import fill, search
from tests.contract.gateway.conftest import Gateway
from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow.search.v1 import search_pb2 as s
from winnow_gateway.ordering import Mixing
from winnow_gateway.ports import RerankerModel
from winnow_gateway.reranker_client import GrpcReranker
from winnow_rpc.faults import FailedPrecondition
from winnow_rpc.serving import RunningServer, Service
from winnow_rpc.settings import ServingSettings

OLD, NEW = "a" * 64, "b" * 64


class Replicas(reranker_pb2_grpc.RerankerServiceServicer):
    """Answers as replicas do to whom calls go in turn: each call by the next of these models."""

    def __init__(self, *fingerprints: str) -> None:
        self.asked = 0
        self.serve(*fingerprints)

    def serve(self, *fingerprints: str) -> None:
        self._turn = cycle(fingerprints)

    async def RerankDocuments(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def ScorePairs(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def GetModel(self, request: Any, context: Any) -> Any:
        self.asked += 1
        fingerprint = next(self._turn)
        return reranker_pb2.GetModelResponse(model=reranker_pb2.Model(id=fingerprint[0], fingerprint=fingerprint))

    async def StreamRerankDocuments(self, request: Any, context: Any) -> AsyncIterator[Any]:
        fingerprint = next(self._turn)
        if request.options.model_fingerprint not in ("", fingerprint):
            raise FailedPrecondition("another model is loaded", reason="MODEL_MISMATCH")
        yield reranker_pb2.StreamRerankDocumentsResponse(
            scores=[reranker_pb2.DocumentScore(index=at) for at in range(len(request.documents))],
            report=reranker_pb2.RerankReport(model_fingerprint=fingerprint),
        )


@pytest.fixture
def replicas() -> Replicas:
    return Replicas(OLD)


@pytest.fixture
async def client(replicas: Replicas) -> AsyncIterator[GrpcReranker]:
    async def nothing() -> None:
        pass

    service = Service(
        name="replicas",
        register=lambda server: reranker_pb2_grpc.add_RerankerServiceServicer_to_server(replicas, server),
        service_names=["winnow.reranker.v1.RerankerService"],
        probe=nothing,
        close=nothing,
    )
    server = RunningServer(service, ServingSettings(drain_seconds=0, log_level="error"))
    await server.start()
    made = GrpcReranker(target=server.address, max_message_bytes=1024 * 1024, model_cache_seconds=60)
    try:
        yield made
    finally:
        await made.close()
        await server.stop()


async def scored_by(client: GrpcReranker, fingerprint: str = "") -> str:
    (batch,) = [batch async for batch in client.rerank("q", ["p"], fingerprint=fingerprint, timeout=5)]
    return batch.model_fingerprint


async def test_the_model_is_asked_once_and_anew_when_another_has_made_scores(
    client: GrpcReranker, replicas: Replicas
) -> None:
    assert [(await client.model(timeout=5)).fingerprint for _ in range(3)] == [OLD] * 3
    assert replicas.asked == 1
    replicas.serve(NEW)
    assert await scored_by(client) == NEW
    assert (await client.model(timeout=5)).fingerprint == NEW
    assert replicas.asked == 2


async def test_while_replicas_serve_two_models_each_is_found_and_remembered(
    client: GrpcReranker, replicas: Replicas
) -> None:
    replicas.serve(OLD, NEW)
    for fingerprint in (OLD, NEW, NEW, OLD):
        assert (await client.model(fingerprint=fingerprint, timeout=5)).fingerprint == fingerprint
    assert replicas.asked == 2
    with pytest.raises(FailedPrecondition) as caught:
        await client.model(fingerprint="c" * 64, timeout=5)
    assert caught.value.reason == "MODEL_MISMATCH"


async def test_scores_of_a_certain_model_are_that_models_or_refused(client: GrpcReranker, replicas: Replicas) -> None:
    assert await scored_by(client, OLD) == OLD
    replicas.serve(NEW)
    with pytest.raises(FailedPrecondition) as caught:
        await scored_by(client, OLD)
    assert caught.value.reason == "MODEL_MISMATCH"


def model(fingerprint: str, mixing: Mixing) -> RerankerModel:
    return RerankerModel(id="m", fingerprint=fingerprint, mixing=mixing)


def changes_after_it_was_asked(gateway: Gateway, *, found: bool) -> None:
    """The model that scores is the newer one, though the older one was asked about; `found`: it can be asked about."""
    older, newer = model(OLD, Mixing(k=5)), model(NEW, Mixing(k=9))

    async def asked(*, fingerprint: str = "", timeout: float | None = None) -> RerankerModel:
        if fingerprint == NEW and not found:
            raise FailedPrecondition("it is served no more", reason="MODEL_MISMATCH")
        return newer if fingerprint == NEW else older

    gateway.reranker.served = newer
    gateway.reranker.model = asked  # type: ignore[method-assign]


async def test_a_search_mixes_as_the_model_recommends_that_made_its_scores(gateway: Gateway) -> None:
    await fill(gateway)
    changes_after_it_was_asked(gateway, found=True)
    response = await gateway.stub.Search(search(require_rerank=True))
    assert (response.reranker_fingerprint, response.mixing.k) == (NEW, 9)
    assert (response.reranked_count, len(response.degradations)) == (4, 0)


async def test_without_the_mixing_of_the_model_that_made_the_scores_the_order_is_that_of_retrieval(
    gateway: Gateway,
) -> None:
    await fill(gateway)
    changes_after_it_was_asked(gateway, found=False)
    response = await gateway.stub.Search(search())
    (degradation,) = response.degradations
    assert (degradation.kind, degradation.reason) == (s.DEGRADATION_KIND_RERANK_SKIPPED, "MODEL_CHANGED")
    assert "serves another model" in degradation.message
    assert len(response.hits) == 4
    gateway.reranker.served = replace(gateway.reranker.served, fingerprint=OLD)
    assert not (await gateway.stub.Search(search())).degradations, "nothing of it is held against the reranker"
