"""What the gateway's logic needs from outside: an embedder, a reranker, an index. Adapters and fakes implement these.

Every method raises faults of `winnow_rpc.faults` only: Unavailable when the other side cannot be reached,
DeadlineExceeded when `timeout` (seconds, None: no limit) ran out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from winnow_gateway.collections import Collection, CollectionSpec, EmbedderModel
from winnow_gateway.documents import Document, DocumentView, StoredDocument
from winnow_gateway.filters import Filter
from winnow_gateway.mixing import ScoreMixings
from winnow_gateway.ordering import Fusion, Mixing, StagePlace
from winnow_gateway.placements import Placement
from winnow_rpc.faults import FailedPrecondition, Internal, Unavailable

REPLICAS_TRIED = 4
"""How often in a row is asked what only those of a service's replicas answer that have one of two models: while they
change from one to the other, calls go to all of them in turn."""


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """Vectors of some texts, and what making them cost."""

    vectors: NDArray[np.float32]
    """Shape [texts, dimension]."""
    dropped_token_counts: Mapping[int, int]
    """Position of a text that was cut → tokens that were cut from it."""
    token_count: int
    inference_micros: int
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class RerankerModel:
    """The cross-encoder that the reranker serves."""

    id: str
    fingerprint: str
    mixing: Mixing | None
    """How its ranks are best mixed with retrieval's; None: not at all."""
    score_mixings: ScoreMixings = field(default_factory=dict)
    """How its scores are best mixed with retrieval's, which goes before `mixing`."""
    activation: str = "identity"
    """Name of the function that makes its scores, by which they are mixed."""
    calibrated: bool = False
    """A probability comes with each score."""


@dataclass(frozen=True, slots=True)
class RerankedBatch:
    """Scores of some of the documents of one request."""

    scores: Mapping[int, float]
    """Position of the document in the request → score, higher is better."""
    probabilities: Mapping[int, float]
    """Position → calibrated probability that the document is relevant; empty where the model has no calibrator."""
    token_count: int
    inference_micros: int
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class Point:
    """A document with its vector, to be written."""

    document: Document
    content_hash: str
    vector: NDArray[np.float32]
    updated: datetime | None = None
    """When the document was written; None: now."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that retrieval found."""

    document: Document
    """As far as the view asked for; of a long text the head alone (`documents.split_text`)."""
    score: float
    """Higher is better, whatever the measure: distances come negated."""
    head_only: bool = False
    """True if there is more of the text: `Index.texts` has it."""
    dense: StagePlace | None = None
    """Its place in the order by vectors; None if that was not asked, or did not find it."""
    lexical: StagePlace | None = None
    """Its place in the order by BM25; None if that was not asked, or did not find it."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some documents, and where the next ones begin."""

    documents: Sequence[Document]
    next_offset: str | None


@dataclass(frozen=True, slots=True)
class HashPage:
    """Content hashes of some documents by id, and where the next ones begin."""

    hashes: Mapping[str, str]
    next_offset: str | None


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Some entries of a journal: the documents that were written, by the id of the entry; and where the next begin."""

    entries: Mapping[str, Sequence[str]]
    next_offset: str | None


@dataclass(frozen=True, slots=True)
class WholeTexts:
    """Whole texts of documents by id, and for how many more one answer has no room."""

    texts: Mapping[str, str]
    left_out: int = 0


class IndexRefused(Internal):
    """The index works, but refused a call: it could do nothing with it, or nothing with that collection."""

    default_reason = "INDEX_REFUSED"


class IndexDiskFault(Unavailable):
    """The index works, but its disk is full or fails: writes are refused while searches go on."""

    default_reason = "INDEX_DISK"


def no_lexical_index(collection: str) -> FailedPrecondition:
    """The fault for a search by BM25 of a collection that has none."""
    return FailedPrecondition(
        f"collection {collection!r} has no BM25 index: it was made without one. Search it by vectors, or make it anew",
        reason="NO_LEXICAL_INDEX",
        metadata={"collection": collection},
    )


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def backends(self) -> Sequence[str]:
        """Names of what embeds, for breakers and messages."""
        ...

    def backend(self, fingerprint: str) -> str:
        """Which of `backends` embeds for a model, as far as is known."""
        ...

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> EmbedderModel:
        """The model that is served now; where there are several, the one with this fingerprint if it is among them."""
        ...

    async def embed_query(self, query: str, *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        """The vector of a query. FailedPrecondition if the model served has another fingerprint."""
        ...

    async def embed_passages(
        self, passages: Sequence[str], *, fingerprint: str, timeout: float | None = None
    ) -> EmbeddedTexts:
        """Vectors of passages, as bulk work. FailedPrecondition if the model served has another fingerprint."""
        ...


class Reranker(Protocol):
    """Scores documents against a query."""

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> RerankerModel:
        """The model that is served now; while one takes the place of another, the one with this fingerprint.
        FailedPrecondition, reason MODEL_MISMATCH, if that is not to be found."""
        ...

    def rerank(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", timeout: float | None = None
    ) -> AsyncGenerator[RerankedBatch, None]:
        """Scores as they are ready; passages are scored in the order given. Closing the iterator cancels the rest.

        All are of one model; of the one with this fingerprint if it is given, else FailedPrecondition, reason
        MODEL_MISMATCH.
        """
        ...


class Placements(Protocol):
    """Says, to all gateways alike, which collections of the index a name means. See `placements`."""

    async def placements(self, names: Iterable[str]) -> Mapping[str, Placement]:
        """Where each of the names is kept now, in one call; whether it is there at all is not looked at."""
        ...

    async def placement(self, name: str) -> Placement:
        """Where a name is kept now."""
        ...

    async def begin(self, name: str, stored: str, journal: str) -> None:
        """From now on a collection of the index is the one that is being filled, and writes go into this journal. Who
        was at it before is not any more."""
        ...

    async def hold(self, name: str) -> None:
        """From now on writes wait. Aborted if nothing is being filled."""
        ...

    async def release(self, name: str) -> None:
        """Writes go on, to where they went. Aborted if none were held."""
        ...

    async def switch(self, placement: Placement) -> None:
        """The held collection is the live one, the live one the former, and there is no journal any more, at once.
        Aborted if none is held any more."""
        ...


class Journals(Protocol):
    """Keep, in the index, which documents were written while their collection is embedded anew.

    A journal is one of the stored names of its collection, and deleted as such. One that is not there any more raises
    NotFound.
    """

    async def make(self, name: str) -> str:
        """A new and empty journal for a collection; returns its stored name."""
        ...

    async def add(self, journal: str, document_ids: Sequence[str]) -> None:
        """Adds one entry; returns once it is on disk."""
        ...

    async def entries(self, journal: str, *, limit: int, offset: str | None) -> JournalPage:
        """Entries, page by page, in no order: all that were there when the first page was asked for, and some that came
        later. There may be fewer than `limit` on a page that is not the last, if they are large."""
        ...

    async def remove(self, journal: str, entries: Sequence[str]) -> None:
        """Removes entries by their ids."""
        ...


class Index(Protocol):
    """Holds collections of points, under their stored names. Unknown collections raise NotFound."""

    @property
    def placements(self) -> Placements:
        """Which of them a name means."""
        ...

    @property
    def journals(self) -> Journals:
        """What was written while they are embedded anew."""
        ...

    async def create_collection(self, spec: CollectionSpec, *, created: datetime | None = None) -> Collection:
        """Makes a collection; AlreadyExists if its stored name is taken. `created`: when it counts as made; None:
        now."""
        ...

    async def complete_collection(self, name: str) -> Collection:
        """Makes what a collection lacks whose maker was killed, as long as it is empty; nothing else has anything to
        make up for."""
        ...

    async def collection(self, name: str) -> Collection:
        """One collection as it stands."""
        ...

    async def collection_names(self) -> Sequence[str]:
        """Names of all collections, ours or not, in no order."""
        ...

    async def stored_names(self, name: str) -> Sequence[str]:
        """Stored names of all that there is of a collection, whatever it is for."""
        ...

    async def delete_collection(self, name: str) -> None:
        """Removes a collection and all its points, and the roles that it had."""
        ...

    async def content_hashes(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Content hash of each of the documents that is there."""
        ...

    async def hashes(self, name: str, *, limit: int, offset: str | None) -> HashPage:
        """Content hashes of the documents, page by page: of all that are there throughout."""
        ...

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Writes points; returns once they are on disk. Ids are distinct."""
        ...

    async def document(self, name: str, document_id: str) -> StoredDocument | None:
        """One document, None if it is not there."""
        ...

    async def stored_documents(self, name: str, document_ids: Sequence[str]) -> Sequence[StoredDocument]:
        """Those of the documents that are there, whole, in no order."""
        ...

    async def texts(self, name: str, document_ids: Sequence[str]) -> WholeTexts:
        """The whole text of each of the documents that is there; the first of them, if all are too much for one
        answer to a caller."""
        ...

    async def documents(
        self, name: str, *, filter_: Filter, limit: int, offset: str | None, view: DocumentView
    ) -> Page:
        """Documents in the index's own stable order, from an offset that an earlier page gave.

        There may be fewer than `limit` on a page that is not the last, if they are large.
        """
        ...

    async def delete_documents(self, name: str, document_ids: Sequence[str]) -> int:
        """Deletes by id; returns how many were there, once that is on disk."""
        ...

    async def delete_matching(self, name: str, filter_: Filter) -> int:
        """Deletes what satisfies the filter; returns how many did, once that is on disk."""
        ...

    async def retrieve(
        self,
        name: str,
        *,
        vector: NDArray[np.float32] | None,
        text: str | None,
        fusion: Fusion,
        limit: int,
        filter_: Filter,
        view: DocumentView,
        min_score: float | None,
        ef: int | None,
        exact: bool,
        timeout: float | None = None,
    ) -> Sequence[Candidate]:
        """The best documents by falling score, ties by document id, each with its place in the orders that were asked.

        A `vector` alone: by similarity, at least `min_score` if that is given. A `text` alone: by BM25, for which
        `min_score`, `ef` and `exact` mean nothing. Both: both orders fused at the root of one query; the three bear on
        the order by vectors alone. A text needs a collection with BM25: FailedPrecondition, reason NO_LEXICAL_INDEX.
        """
        ...
