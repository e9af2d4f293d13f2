"""RerankerService over a cross-encoder: the only file here that knows the contract's messages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from winnow.reranker.v1 import reranker_pb2 as pb
from winnow.reranker.v1 import reranker_pb2_grpc as pb_grpc
from winnow_inference.batch_tracing import CostTrace
from winnow_inference.cross_encoder import CrossEncoder, Scored
from winnow_inference.models.learned import Mixing, ScoreMixings
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.truncation import PairTruncation
from winnow_reranker import validation
from winnow_rpc.faults import InvalidArgument

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RerankerService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]

_TRUNCATIONS = {
    pb.TRUNCATION_POLICY_UNSPECIFIED: PairTruncation.LONGEST_FIRST,
    pb.TRUNCATION_POLICY_LONGEST_FIRST: PairTruncation.LONGEST_FIRST,
    pb.TRUNCATION_POLICY_DOCUMENT_ONLY: PairTruncation.DOCUMENT_ONLY,
    pb.TRUNCATION_POLICY_REFUSE: PairTruncation.REFUSE,
}
_PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BULK: Priority.BULK,
}


@dataclass(frozen=True, kw_only=True)
class RerankerLimits:
    """What one request may hold."""

    max_document_count: int
    """Documents or pairs of a request."""
    max_text_bytes: int
    """Bytes of UTF-8 of a text."""
    max_message_bytes: int
    """Bytes of a gRPC message."""


class RerankerServicer(pb_grpc.RerankerServiceServicer):
    """Answers for one loaded model."""

    def __init__(self, encoder: CrossEncoder, limits: RerankerLimits) -> None:
        self._encoder = encoder
        self._limits = limits

    async def RerankDocuments(self, request: pb.RerankDocumentsRequest, context: Context) -> pb.RerankDocumentsResponse:
        """Scores documents against one query, all or none, best first."""
        truncation, priority = self._options(request.options)
        self._check_rerank(request.query, request.documents)
        validation.check_top_count(request.top_count)
        scored = await self._encoder.score(
            [request.query],
            request.documents,
            truncation=truncation,
            priority=priority,
            deadline=_deadline(context),
        )
        CostTrace().add(scored)
        best = sorted(self._document_scores(scored), key=lambda document: (-document.score, document.index))
        return pb.RerankDocumentsResponse(
            scores=best[: request.top_count] if request.top_count else best, report=self._report(scored)
        )

    async def StreamRerankDocuments(
        self, request: pb.StreamRerankDocumentsRequest, context: Context
    ) -> AsyncIterator[pb.StreamRerankDocumentsResponse]:
        """Scores documents against one query, batch by batch, in the order given."""
        truncation, priority = self._options(request.options)
        self._check_rerank(request.query, request.documents)
        parts = self._encoder.score_in_order(
            request.query, request.documents, truncation=truncation, priority=priority, deadline=_deadline(context)
        )
        # Closed as soon as the caller goes, so that what has not begun is dropped then.
        cost = CostTrace()
        async with aclosing(parts):
            async for scored in parts:
                cost.add(scored)
                yield pb.StreamRerankDocumentsResponse(
                    scores=self._document_scores(scored), report=self._report(scored)
                )

    async def ScorePairs(self, request: pb.ScorePairsRequest, context: Context) -> pb.ScorePairsResponse:
        """Scores pairs, with every label."""
        truncation, priority = self._options(request.options)
        limits = self._limits
        validation.check_count(len(request.pairs), limit=limits.max_document_count, field="pairs")
        sides = [
            (f"pairs[{index}].{side}", text)
            for index, pair in enumerate(request.pairs)
            for side, text in (("first", pair.first), ("second", pair.second))
        ]
        validation.check_sizes(sides, max_bytes=limits.max_text_bytes)
        scored = await self._encoder.score(
            [pair.first for pair in request.pairs],
            [pair.second for pair in request.pairs],
            truncation=truncation,
            priority=priority,
            deadline=_deadline(context),
            field="pairs",
        )
        CostTrace().add(scored)
        return pb.ScorePairsResponse(
            scores=[
                pb.PairScore(label_scores=row, probability=probability)
                for row, probability in zip(scored.scores.tolist(), self._probabilities(scored), strict=True)
            ],
            report=self._report(scored),
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describes the model."""
        model, facts, engine, limits = self._encoder.model, self._encoder.facts, self._encoder.engine, self._limits
        return pb.GetModelResponse(
            model=pb.Model(
                id=model.folder.id,
                revision=model.folder.revision,
                fingerprint=facts.fingerprint,
                max_token_count=facts.max_token_count,
                labels=facts.labels,
                activation=facts.activation_name,
                recommended_mixing=_mixing(model.learned.mixing),
                recommended_score_mixings=_score_mixings(model.learned.score_mixings),
                engine=pb.Engine(
                    name=engine.name,
                    device=engine.device,
                    dtype=engine.dtype,
                    thread_count=engine.threads,
                    stream_count=engine.streams,
                    reason=engine.reason,
                ),
                limits=pb.Limits(
                    max_document_count=limits.max_document_count,
                    max_text_bytes=limits.max_text_bytes,
                    max_message_bytes=limits.max_message_bytes,
                    max_queued_tokens=self._encoder.limits.max_queued_tokens,
                ),
                calibrated=model.learned.calibration is not None,
            )
        )

    def _options(self, options: pb.RerankOptions) -> tuple[PairTruncation, Priority]:
        validation.check_fingerprint(options.model_fingerprint, loaded=self._encoder.facts.fingerprint)
        if options.truncation_policy not in _TRUNCATIONS:
            raise _unknown("options.truncation_policy", options.truncation_policy)
        if options.priority not in _PRIORITIES:
            raise _unknown("options.priority", options.priority)
        return _TRUNCATIONS[options.truncation_policy], _PRIORITIES[options.priority]

    def _check_rerank(self, query: str, documents: Sequence[str]) -> None:
        limits = self._limits
        validation.check_can_rerank(self._encoder.facts.labels)
        validation.check_query(query, max_bytes=limits.max_text_bytes)
        validation.check_count(len(documents), limit=limits.max_document_count, field="documents")
        named = [(f"documents[{index}]", text) for index, text in enumerate(documents)]
        validation.check_sizes(named, max_bytes=limits.max_text_bytes)

    def _document_scores(self, scored: Scored) -> list[pb.DocumentScore]:
        rows = zip(scored.indexes, scored.scores[:, 0].tolist(), self._probabilities(scored), strict=True)
        return [pb.DocumentScore(index=index, score=score, probability=chance) for index, score, chance in rows]

    def _probabilities(self, scored: Scored) -> Sequence[float | None]:
        calibration = self._encoder.model.learned.calibration
        if calibration is None:
            return [None] * len(scored.indexes)
        chances: list[float] = calibration.probability(
            scored.scores[:, 0], self._encoder.facts.activation_name
        ).tolist()
        return chances

    def _report(self, scored: Scored) -> pb.RerankReport:
        return pb.RerankReport(
            token_count=scored.token_count,
            truncations=[
                pb.Truncation(index=cut.index, kept_token_count=cut.kept, dropped_token_count=cut.dropped)
                for cut in scored.cuts
            ],
            timing=pb.Timing(
                queue_micros=scored.queue_micros,
                tokenize_micros=scored.tokenize_micros,
                inference_micros=scored.inference_micros,
            ),
            model_fingerprint=self._encoder.facts.fingerprint,
        )


def _mixing(mixing: Mixing | None) -> pb.RankMixing | None:
    if mixing is None:
        return None
    return pb.RankMixing(k=mixing.k, retrieval_weight=mixing.retrieval_weight, rerank_weight=mixing.rerank_weight)


def _score_mixings(mixings: ScoreMixings) -> pb.ScoreMixings | None:
    learned = {kind: pb.ScoreMixing(**weights) for kind, weights in mixings.model_dump(exclude_none=True).items()}
    return pb.ScoreMixings(**learned) if learned else None


def _deadline(context: Context) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.monotonic() + left


def _unknown(field: str, value: int) -> InvalidArgument:
    return InvalidArgument(f"{field} {value} is not known here", field=field, reason="UNKNOWN_VALUE")
