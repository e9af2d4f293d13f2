"""Documents to points: one call of the embedder for a group, several where it is too large for one, and who is at fault
where the embedder refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from winnow_gateway.call_sizes import is_too_large, smaller_call
from winnow_gateway.documents import Document
from winnow_gateway.patience import persist
from winnow_gateway.ports import EmbeddedTexts, Embedder, Point
from winnow_rpc.faults import Fault, InvalidArgument, ResourceExhausted


@dataclass(frozen=True, slots=True)
class EmbeddedGroup:
    """What the embedder made of some documents."""

    points: Sequence[Point] = ()
    refusals: Mapping[str, Fault] = field(default_factory=dict)
    """Of documents that it refused, by id."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Tokens that were cut, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageEmbedding:
    """Embeds groups of documents for one model."""

    embedder: Embedder
    fingerprint: str
    retry_seconds: float
    """How long an embedder that is away or overloaded is waited for."""
    work: str
    """What it is for, in the log."""
    timeout: Callable[[], float | None] = lambda: None
    """Seconds left for the whole."""

    async def embed(self, documents: Sequence[Document]) -> EmbeddedGroup:
        """Points for the documents that the embedder took; a document that it refuses refuses only itself."""
        if not documents:
            return EmbeddedGroup()
        try:
            embedded = await persist(
                lambda: self._texts([document.passage for document in documents]),
                seconds=self.retry_seconds,
                work=self.work,
            )
        except (InvalidArgument, ResourceExhausted) as refusal:
            too_large = is_too_large(refusal)
            if isinstance(refusal, ResourceExhausted) and not too_large:
                raise
            if len(documents) == 1:
                return EmbeddedGroup(refusals={documents[0].id: refusal})
            # Else one of them is at fault: each alone finds out which, and the others do not suffer for it.
            size = smaller_call(len(documents), refusal) if too_large else 1
            parts = [await self.embed(documents[at : at + size]) for at in range(0, len(documents), size)]
            return EmbeddedGroup(
                [point for part in parts for point in part.points],
                {id_: fault for part in parts for id_, fault in part.refusals.items()},
                {id_: count for part in parts for id_, count in part.dropped.items()},
            )
        return EmbeddedGroup(
            [
                Point(document, document.content_hash, vector)
                for document, vector in zip(documents, embedded.vectors, strict=True)
            ],
            dropped={documents[position].id: count for position, count in embedded.dropped_token_counts.items()},
        )

    async def _texts(self, texts: Sequence[str]) -> EmbeddedTexts:
        return await self.embedder.embed_passages(texts, fingerprint=self.fingerprint, timeout=self.timeout())
