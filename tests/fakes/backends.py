"""An embedder, a reranker and an index in memory, with switches to make them fail.

The embedder hashes words into a small vector, so texts that share words are near; the reranker counts shared ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tests.fakes.journals import FakeJournals
from tests.fakes.placements import FakePlacements
from winnow_gateway.collections import Collection, CollectionSpec, EmbedderModel, IndexState, Similarity
from winnow_gateway.documents import Document, DocumentView, Json, StoredDocument, point_id, split_text
from winnow_gateway.filters import Condition, Exists, Filter, HasId, Match, Range, TimeRange
from winnow_gateway.ordering import Fusion, Mixing, StagePlace
from winnow_gateway.placements import split_stored
from winnow_gateway.ports import (
    Candidate,
    EmbeddedTexts,
    HashPage,
    Page,
    Point,
    RerankedBatch,
    RerankerModel,
    WholeTexts,
    no_lexical_index,
)
from winnow_rpc.faults import AlreadyExists, FailedPrecondition, Fault, InvalidArgument, NotFound, ResourceExhausted

DIMENSION = 64


def embed_words(text: str, salt: str = "") -> NDArray[np.float32]:
    """A unit vector of DIMENSION components, from the words of a text; another one with another salt."""
    vector = np.full(DIMENSION, 1e-3, dtype=np.float32)
    for word in text.lower().split():
        digest = hashlib.blake2b(f"{salt}{word}".encode(), digest_size=4).digest()
        vector[int.from_bytes(digest, "little") % DIMENSION] += 1.0
    return vector / np.linalg.norm(vector)


def _refuse_too_large(words: Sequence[Sequence[str]], limit: int) -> None:
    """As the model services refuse what could never wait, even alone."""
    if (count := sum(map(len, words))) > limit:
        raise ResourceExhausted(
            "the request has too many tokens",
            reason="REQUEST_TOO_LARGE",
            metadata={"token_count": str(count), "max_queued_tokens": str(limit)},
        )


class FakeEmbedder:
    """Implements ports.Embedder."""

    def __init__(self, fingerprint: str = "f" * 64, *, salt: str = "") -> None:
        self._salt = salt
        self.served = EmbedderModel("fake-bi-encoder", fingerprint, DIMENSION, Similarity.COSINE)
        self.max_words = 100
        self.failures: list[Fault | None] = []
        """Raised by the next calls that embed, one each; None lets one pass."""
        self.max_call_words = 10**9
        """A call with more is refused as too large."""
        self.refused_words: set[str] = set()
        """A passage with one of these makes its whole call fail."""
        self.away: Fault | None = None
        """Raised by every call while set."""
        self.embedded_passages: list[str] = []
        self.delay = 0.0
        self.queries = 0
        """Calls of `embed_query`."""

    @property
    def backends(self) -> Sequence[str]:
        return ["embedder"]

    def backend(self, fingerprint: str) -> str:
        return "embedder"

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> EmbedderModel:
        if self.away:
            raise self.away
        return self.served

    async def embed_query(self, query: str, *, fingerprint: str, timeout: float | None = None) -> EmbeddedTexts:
        self.queries += 1
        return await self._embed([query], fingerprint)

    async def embed_passages(
        self, passages: Sequence[str], *, fingerprint: str, timeout: float | None = None
    ) -> EmbeddedTexts:
        embedded = await self._embed(passages, fingerprint)
        self.embedded_passages += passages
        return embedded

    async def _embed(self, texts: Sequence[str], fingerprint: str) -> EmbeddedTexts:
        await asyncio.sleep(self.delay)
        if self.away:
            raise self.away
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        if fingerprint != self.served.fingerprint:
            raise FailedPrecondition("another model is served")
        words = [text.split() for text in texts]
        _refuse_too_large(words, self.max_call_words)
        for position, each in enumerate(words):
            if self.refused_words.intersection(each):
                raise InvalidArgument("the text holds a word that is refused", field=f"texts[{position}]")
        return EmbeddedTexts(
            vectors=np.stack([embed_words(" ".join(each[: self.max_words]), self._salt) for each in words]),
            dropped_token_counts={i: len(w) - self.max_words for i, w in enumerate(words) if len(w) > self.max_words},
            token_count=sum(len(w) for w in words),
            inference_micros=10,
            model_fingerprint=self.served.fingerprint,
        )


class FakeReranker:
    """Implements ports.Reranker: the score is the number of query words in the passage, in batches of two.

    The probability, where the served model is calibrated, is 1 - 1 / (1 + score).
    """

    def __init__(self, mixing: Mixing | None = None) -> None:
        self.served = RerankerModel("fake-cross-encoder", "c" * 64, mixing)
        self.failure: Fault | None = None
        """Raised in the place of the batch `fails_at`, and by `model` if that is 0."""
        self.fails_at = 0
        self.passages: list[str] = []
        self.calls = 0
        self.delay = 0.0
        """Seconds that a batch takes."""
        self.scored = 0
        """Passages scored, over all calls."""
        self.max_call_words = 10**9
        """A call with more is refused as too large."""
        self.cancelled = asyncio.Event()
        """Set when a call was given up before its end."""
        self.timeouts: list[float | None] = []
        self.held_up: set[int] = set()
        """Batches that come last, whatever their place."""

    async def model(self, *, fingerprint: str = "", timeout: float | None = None) -> RerankerModel:
        if self.failure and self.fails_at == 0:
            raise self.failure
        self.require(fingerprint)
        return self.served

    def require(self, fingerprint: str) -> None:
        """Refuses a call for another model; asked once a call."""
        if fingerprint and fingerprint != self.served.fingerprint:
            raise FailedPrecondition("another model is served", reason="MODEL_MISMATCH")

    async def rerank(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", timeout: float | None = None
    ) -> AsyncGenerator[RerankedBatch, None]:
        wanted = set(query.lower().split())
        self.passages = list(passages)
        self.calls += 1
        self.timeouts.append(timeout)
        self.require(fingerprint)
        _refuse_too_large([passage.split() for passage in passages], self.max_call_words)
        batches = range(0, len(passages), 2)
        ended = False
        try:
            for number, start in enumerate(sorted(batches, key=lambda start: (start // 2 in self.held_up, start))):
                await asyncio.sleep(self.delay)
                if self.failure and number >= self.fails_at:
                    ended = True
                    raise self.failure
                scores = {
                    start + i: float(len(wanted.intersection(passage.lower().split())))
                    for i, passage in enumerate(passages[start : start + 2])
                }
                self.scored += len(scores)
                ended = start == batches[-1]
                probabilities = (
                    {i: 1 - 1 / (1 + score) for i, score in scores.items()} if self.served.calibrated else {}
                )
                yield RerankedBatch(
                    scores, probabilities, token_count=7, inference_micros=5, model_fingerprint=self.served.fingerprint
                )
        finally:
            if not ended:
                self.cancelled.set()


@dataclass
class _Held:
    spec: CollectionSpec
    created: datetime
    points: dict[str, tuple[Point, datetime]] = field(default_factory=dict)


class FakeIndex:
    """Implements ports.Index by comparing with every vector and every text."""

    def __init__(self) -> None:
        self.held: dict[str, _Held] = {}
        self.journals = FakeJournals()
        self.placements = FakePlacements(self.held, self.journals.held)
        self.failures: list[Fault] = []
        """Raised by the next writes, one each."""
        self.exact_searches: list[bool] = []
        """Whether each search compared with every vector."""
        self.upserts: list[list[str]] = []
        """Document ids of each write."""
        self.retrievals: list[tuple[bool, bool]] = []
        """Whether each search had a vector, and a text."""
        self.read_failure: Fault | None = None
        """Raised by every search while set."""
        self.texts_failure: Fault | None = None
        """Raised while set when whole texts are asked for."""
        self.most_texts = 1_000
        """How many whole texts are given at once."""
        self.delay = 0.0
        """Seconds that a search takes."""
        self.state = IndexState.READY
        """Of every collection."""
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        """Of whoever writes."""

    async def create_collection(self, spec: CollectionSpec, *, created: datetime | None = None) -> Collection:
        if spec.stored_as in self.held:
            raise AlreadyExists(f"collection {spec.name!r} is there already", reason="COLLECTION_EXISTS")
        self.held[spec.stored_as] = _Held(spec, created or datetime.now(UTC))
        return await self.collection(spec.stored_as)

    async def complete_collection(self, name: str) -> Collection:
        return await self.collection(name)

    async def collection(self, name: str) -> Collection:
        held = self._find(name)
        return Collection(held.spec, held.created, len(held.points), 0, self.state)

    async def collection_names(self) -> Sequence[str]:
        return list(self.held)

    async def stored_names(self, name: str) -> Sequence[str]:
        return [stored for stored in (*self.held, *self.journals.held) if split_stored(stored)[0] == name]

    async def delete_collection(self, name: str) -> None:
        if self.journals.held.pop(name, None) is None:
            self._find(name)
            del self.held[name]
        for each in [each for each, stored in self.placements.aliases.items() if stored == name]:
            del self.placements.aliases[each]

    async def content_hashes(self, name: str, document_ids: Sequence[str]) -> Mapping[str, str]:
        points = self._find(name).points
        return {id_: points[id_][0].content_hash for id_ in document_ids if id_ in points}

    async def hashes(self, name: str, *, limit: int, offset: str | None) -> HashPage:
        await asyncio.sleep(0)
        by_point = {point_id(id_): point for id_, (point, _) in self._find(name).points.items()}
        fitting = [key for key in sorted(by_point) if key >= (offset or "")]
        found = {by_point[key].document.id: by_point[key].content_hash for key in fitting[:limit]}
        return HashPage(found, fitting[limit] if len(fitting) > limit else None)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        held = self._find(name)
        self.upserts.append([point.document.id for point in points])
        now = self.clock()
        held.points.update({point.document.id: (point, point.updated or now) for point in points})

    async def document(self, name: str, document_id: str) -> StoredDocument | None:
        found = await self.stored_documents(name, [document_id])
        return found[0] if found else None

    async def stored_documents(self, name: str, document_ids: Sequence[str]) -> Sequence[StoredDocument]:
        points = self._find(name).points
        found = [points[id_] for id_ in document_ids if id_ in points]
        return [StoredDocument(point.document, point.content_hash, updated) for point, updated in found]

    async def texts(self, name: str, document_ids: Sequence[str]) -> WholeTexts:
        if self.texts_failure:
            raise self.texts_failure
        points = self._find(name).points
        given = [id_ for id_ in document_ids if id_ in points][: self.most_texts]
        return WholeTexts(
            {id_: points[id_][0].document.text for id_ in given}, max(0, len(document_ids) - self.most_texts)
        )

    async def documents(
        self, name: str, *, filter_: Filter, limit: int, offset: str | None, view: DocumentView
    ) -> Page:
        by_point = {point_id(id_): point.document for id_, (point, _) in self._find(name).points.items()}
        fitting = [key for key in sorted(by_point) if key >= (offset or "") and satisfies(by_point[key], filter_)]
        following = fitting[limit] if len(fitting) > limit else None
        return Page([_seen(by_point[key], view) for key in fitting[:limit]], following)

    async def delete_documents(self, name: str, document_ids: Sequence[str]) -> int:
        points = self._find(name).points
        return sum(points.pop(id_, None) is not None for id_ in set(document_ids))

    async def delete_matching(self, name: str, filter_: Filter) -> int:
        points = self._find(name).points
        fitting = [id_ for id_, (point, _) in points.items() if satisfies(point.document, filter_)]
        return await self.delete_documents(name, fitting)

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
        held = self._find(name)
        if text is not None and held.spec.lexical is None:
            raise no_lexical_index(name)
        self.exact_searches.append(exact)
        self.retrievals.append((vector is not None, text is not None))
        await asyncio.sleep(self.delay)
        if self.read_failure:
            raise self.read_failure
        fitting = {id_: point for id_, (point, _) in held.points.items() if satisfies(point.document, filter_)}
        orders: list[tuple[float, list[tuple[str, float]]]] = []
        dense: dict[str, StagePlace] = {}
        lexical: dict[str, StagePlace] = {}
        if vector is not None:
            near = {id_: float(point.vector @ vector) for id_, point in fitting.items()}
            kept = {id_: score for id_, score in near.items() if min_score is None or score >= min_score}
            orders.append((fusion.dense_weight, _ordered(kept)[: max(limit, 100)]))
            dense = _places(orders[-1][1])
        if text is not None:
            passages = {id_: point.document.passage for id_, (point, _) in held.points.items()}
            scores = {id_: score for id_, score in bm25_scores(text, passages).items() if id_ in fitting}
            orders.append((fusion.lexical_weight, _ordered(scores)[: max(limit, 100)]))
            lexical = _places(orders[-1][1])
        if len(orders) == 1:
            found = orders[0][1]
        else:
            fused: dict[str, float] = {}
            for weight, order in orders:
                for rank, (id_, _) in enumerate(order, start=1):
                    fused[id_] = fused.get(id_, 0.0) + fusion.share(rank, weight)
            found = _ordered(fused)
        return [
            replace(
                _candidate(_seen(fitting[id_].document, view), score), dense=dense.get(id_), lexical=lexical.get(id_)
            )
            for id_, score in found[:limit]
        ]

    def _find(self, name: str) -> _Held:
        if name not in self.held:
            raise NotFound(f"there is no collection {split_stored(name)[0]!r}", reason="NO_COLLECTION")
        return self.held[name]


def bm25_scores(query: str, texts: Mapping[str, str], *, k: float = 1.2, b: float = 0.75) -> dict[str, float]:
    """BM25 of each text that shares a word with the query, by id. Words are what white space leaves, in lower case."""
    words = {id_: text.lower().split() for id_, text in texts.items()}
    average = sum(map(len, words.values())) / max(1, len(words))
    scores: dict[str, float] = {}
    for word in set(query.lower().split()):
        counts = {id_: each.count(word) for id_, each in words.items() if word in each}
        rarity = math.log(1 + (len(words) - len(counts) + 0.5) / (len(counts) + 0.5))
        for id_, count in counts.items():
            norm = k * (1 - b + b * len(words[id_]) / average)
            scores[id_] = scores.get(id_, 0.0) + rarity * count * (k + 1) / (count + norm)
    return scores


def _ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _places(order: Sequence[tuple[str, float]]) -> dict[str, StagePlace]:
    return {id_: StagePlace(score, rank) for rank, (id_, score) in enumerate(order, start=1)}


def satisfies(document: Document, filter_: Filter) -> bool:
    """Whether a document satisfies a filter."""
    return (
        all(_holds(document, condition) for condition in filter_.must)
        and (not filter_.should or any(_holds(document, condition) for condition in filter_.should))
        and not any(_holds(document, condition) for condition in filter_.must_not)
    )


def _holds(document: Document, condition: Condition) -> bool:
    match condition:
        case Filter():
            return satisfies(document, condition)
        case HasId(ids=ids):
            return document.id in ids
        case Exists(key=key):
            return any(value is not None for value in _values(document, key))
        case Match(key=key, any_of=wanted):
            return any(
                value == each and isinstance(value, bool) == isinstance(each, bool)
                for value in _values(document, key)
                for each in wanted
            )
        case Range(key=key):
            low = condition.at_least if condition.at_least is not None else -math.inf
            high = condition.at_most if condition.at_most is not None else math.inf
            return any(
                low <= value <= high
                and (condition.more_than is None or value > condition.more_than)
                and (condition.less_than is None or value < condition.less_than)
                for value in _values(document, key)
                if isinstance(value, int | float) and not isinstance(value, bool)
            )
        case TimeRange(key=key, start=start, end=end):
            times = [datetime.fromisoformat(value) for value in _values(document, key) if isinstance(value, str)]
            return any((start is None or time >= start) and (end is None or time < end) for time in times)


def _values(document: Document, key: str) -> list[Json]:
    value: Json = dict(document.metadata)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else [value]


def _candidate(document: Document, score: float) -> Candidate:
    head, rest = split_text(document.text)
    return Candidate(replace(document, text=head), score, head_only=bool(rest))


def _seen(document: Document, view: DocumentView) -> Document:
    return Document(
        document.id,
        document.title,
        document.text if view.text else "",
        document.metadata if view.metadata else {},
    )
