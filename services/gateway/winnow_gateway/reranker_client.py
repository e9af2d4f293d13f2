"""The reranker, over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence

import grpc

from winnow.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from winnow_gateway.backend_faults import named
from winnow_gateway.mixing import FEATURES, ScoreMixing, ScoreMixings
from winnow_gateway.ordering import Mixing
from winnow_gateway.ports import REPLICAS_TRIED, RerankedBatch, RerankerModel
from winnow_rpc import telemetry
from winnow_rpc.calling import ChannelSettings, open_channel
from winnow_rpc.faults import FailedPrecondition
from winnow_rpc.status import fault_from_rpc_error
from winnow_rpc.tls import ClientTls

log = telemetry.get_logger("winnow.gateway")

_REFRESH_SECONDS = 5.0


class GrpcReranker:
    """Implements `ports.Reranker`.

    What the served model is is asked once, and then again every `model_cache_seconds` while the last answer is used: no
    search waits for it. While replicas change from one model to another, either may answer, and both are remembered.
    """

    def __init__(
        self,
        *,
        target: str,
        max_message_bytes: int,
        model_cache_seconds: float,
        tls: ClientTls | None = None,
        silence_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = open_channel(
            ChannelSettings(
                target=target,
                idempotent={"winnow.reranker.v1.RerankerService": ["StreamRerankDocuments", "GetModel"]},
                max_message_bytes=max_message_bytes,
                tls=tls,
                silence_seconds=silence_seconds,
            )
        )
        self._stub = reranker_pb2_grpc.RerankerServiceStub(self._channel)
        self._cache_seconds = model_cache_seconds
        self._clock = clock
        self._known: dict[str, tuple[float, RerankerModel]] = {}
        """By fingerprint, with the time when it was asked."""
        self._latest = ""
        """Fingerprint of the one that answered last; empty if that one is not known."""
        self._asking: asyncio.Task[RerankerModel] | None = None

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> RerankerModel:
        """The model that is served: as it was when last asked, which is done anew beside this once that is too long
        ago."""
        if fingerprint and fingerprint not in self._known:
            return await self._find(fingerprint, timeout)
        known = self._known.get(fingerprint or self._latest)
        if known is None:
            return await self._ask(timeout)
        if self._clock() - known[0] >= self._cache_seconds and self._asking is None:
            self._asking = asyncio.create_task(self._ask(_REFRESH_SECONDS))
            self._asking.add_done_callback(self._asked)
        return known[1]

    async def _find(self, fingerprint: str, timeout: float | None) -> RerankerModel:
        for _ in range(REPLICAS_TRIED):
            model = await self._ask(timeout)
            if model.fingerprint == fingerprint:
                return model
        raise FailedPrecondition(
            f"the reranker's model {fingerprint[:12]} is not served any more",
            reason="MODEL_MISMATCH",
            metadata={"expected": fingerprint, "loaded": model.fingerprint},
        )

    def _asked(self, task: asyncio.Task[RerankerModel]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception():
            log.debug("the reranker's model could not be asked for", error=str(task.exception()))

    async def _ask(self, timeout: float | None) -> RerankerModel:
        try:
            response = await self._stub.GetModel(reranker_pb2.GetModelRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise named(fault_from_rpc_error(error), "reranker") from error
        described = response.model
        mixing = None
        if described.HasField("recommended_mixing"):
            recommended = described.recommended_mixing
            mixing = Mixing(
                k=recommended.k,
                retrieval_weight=recommended.retrieval_weight,
                rerank_weight=recommended.rerank_weight,
            )
        model = RerankerModel(
            id=described.id,
            fingerprint=described.fingerprint,
            mixing=mixing,
            score_mixings=_score_mixings(described.recommended_score_mixings),
            activation=described.activation,
            calibrated=described.calibrated,
        )
        self._remember(model)
        return model

    def _remember(self, model: RerankerModel) -> None:
        now = self._clock()
        self._latest = model.fingerprint
        self._known[self._latest] = (now, model)
        self._known = {
            fingerprint: (asked, known)
            for fingerprint, (asked, known) in self._known.items()
            if now - asked < self._cache_seconds or fingerprint == self._latest
        }

    async def rerank(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", timeout: float | None = None
    ) -> AsyncGenerator[RerankedBatch, None]:
        """Scores as they are ready. Closing the iterator cancels the call, and with it what has not begun."""
        call = self._stub.StreamRerankDocuments(
            reranker_pb2.StreamRerankDocumentsRequest(
                query=query,
                documents=passages,
                options=reranker_pb2.RerankOptions(model_fingerprint=fingerprint),
            ),
            timeout=timeout,
        )
        try:
            async for response in call:
                self._latest = response.report.model_fingerprint
                yield RerankedBatch(
                    scores={scored.index: scored.score for scored in response.scores},
                    probabilities={
                        scored.index: scored.probability for scored in response.scores if scored.HasField("probability")
                    },
                    token_count=response.report.token_count,
                    inference_micros=response.report.timing.inference_micros,
                    model_fingerprint=response.report.model_fingerprint,
                )
        except grpc.aio.AioRpcError as error:
            raise named(fault_from_rpc_error(error), "reranker") from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel."""
        if self._asking:
            self._asking.cancel()
        await self._channel.close()


def _score_mixings(message: reranker_pb2.ScoreMixings) -> ScoreMixings:
    return {
        kind: ScoreMixing(**{name: getattr(getattr(message, kind), name) for name in FEATURES})
        for kind in ("hybrid", "dense", "lexical")
        if message.HasField(kind)
    }
