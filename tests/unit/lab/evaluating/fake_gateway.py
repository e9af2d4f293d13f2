"""A gateway's client without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from winnow_client import (
    Degradation,
    Document,
    Hit,
    RankMixing,
    RetrievalKind,
    SearchMode,
    StageResult,
    searching,
)
from winnow_rpc.faults import AlreadyExists, Unavailable

LEARNED = searching.ScoreMixing(
    rerank=1, rerank_sigmoid=0, dense=2, lexical=0, retrieval_rank=0, dense_absent=0, lexical_absent=0
)


class FakeClient:
    """Finds all documents by their ids, and scores them by the length of these."""

    def __init__(self) -> None:
        self.stored: dict[str, Document] = {}
        self.exists = False
        self.degradations: tuple[Degradation, ...] = ()
        self.unscored: set[str] = set()
        self.refused: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.queries: list[str] = []
        """What was searched for, as often as it was."""
        self.embedder = "e" * 64
        self.fails_at: set[str] = set()
        """Queries that are not answered."""

    async def create_collection(self, name: str, **how: Any) -> None:
        if self.exists:
            raise AlreadyExists("it is there")

    async def ingest(self, name: str, documents: list[Document]) -> AsyncIterator[Any]:
        for document in documents:
            refusal = Unavailable("too odd") if document.id in self.refused else None
            self.stored |= {} if refusal else {document.id: document}
            yield SimpleNamespace(id=document.id, refusal=refusal)

    async def get_collection(self, name: str) -> Any:
        return SimpleNamespace(document_count=len(self.stored), embedder_fingerprint=self.embedder)

    async def search(self, collection: str, query: str, **options: Any) -> Any:
        if query in self.fails_at:
            raise Unavailable("the reranker is gone")
        self.asked.append(options)
        self.queries.append(query)
        where = options.get("where")
        chosen = sorted(self.stored if where is None else where.ids)[: options["limit"]]
        fused = options.get("retrieval") is RetrievalKind.HYBRID
        reranks = options["mode"] in (SearchMode.TWO_STAGE, SearchMode.EXHAUSTIVE)
        hits = [
            Hit(
                document=Document(id=id_),
                rank=rank,
                score=1 / rank,
                retrieval=StageResult(score=1 / rank, rank=rank),
                rerank=StageResult(score=len(id_), rank=rank) if reranks and id_ not in self.unscored else None,
            )
            for rank, id_ in enumerate(chosen, start=1)
        ]
        return SimpleNamespace(
            hits=hits,
            degradations=self.degradations,
            embedder_fingerprint=self.embedder,
            reranker_fingerprint="r" * 64,
            mixing=RankMixing(k=7, retrieval_weight=1, rerank_weight=3) if reranks and not fused else None,
            score_mixing=LEARNED if reranks and fused else None,
        )
