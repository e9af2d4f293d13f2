"""An index in memory, with switches to make it fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tests.fakes.filtering import satisfies
from tests.fakes.journals import FakeJournals
from tests.fakes.placements import FakePlacements
from winnow_gateway.collections import Collection, CollectionSpec, IndexState
from winnow_gateway.documents import Document, DocumentView, StoredDocument, point_id, split_text
from winnow_gateway.filters import Filter
from winnow_gateway.ordering import Fusion, StagePlace
from winnow_gateway.placements import split_stored
from winnow_gateway.ports import (
    Candidate,
    HashPage,
    Page,
    Point,
    WholeTexts,
    no_lexical_index,
)
from winnow_rpc.faults import AlreadyExists, Fault, NotFound


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
