"""Answers without services: the inference engines here, exact similarity, BM25 in memory, the gateway's own fusion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from winnow_gateway.documents import Document as Passage
from winnow_gateway.mixing import ScoreMixing
from winnow_gateway.ordering import Mixing
from winnow_gateway.qdrant_retrieval import FUSED_DEPTH
from winnow_inference.bi_encoder import BiEncoder
from winnow_inference.cross_encoder import CrossEncoder
from winnow_inference.opening import open_bi_encoder, open_cross_encoder
from winnow_inference.scheduling.limits import runner_limits
from winnow_inference.scheduling.queueing import Priority
from winnow_inference.settings import InferenceSettings
from winnow_lab.data.beir import JudgedQuery
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, AnyMixing, Asking, Order, Recommended, fuse
from winnow_lab.evaluating.mapping import in_order
from winnow_lab.evaluating.sets import JudgedSet
from winnow_lab.lexical import Bm25Index
from winnow_reranker.assembly import default_model
from winnow_rpc.faults import InvalidArgument

_GROUP = 256
"""Texts or pairs of one request."""
_AT_ONCE = 2
_QUERIES_AT_ONCE = 64
"""Queries whose similarities are computed in one product."""

Matrix = NDArray[np.float32]


class InProcess:
    """A bi-encoder and a cross-encoder in this process. `async with` opens and closes them."""

    def __init__(self, *, model: str = "", reranker_model: str = "", engine: str = "auto") -> None:
        """Models by path or hub id; empty: the defaults. `engine` as in `InferenceSettings`."""
        # What waits here is our own and nobody is refused.
        common = {"engine": engine, "max_queued_tokens": 16_000_000, "max_wait_seconds": 3600.0}
        self._bi_settings = InferenceSettings.model_validate({"model": model, **common})
        self._cross_settings = InferenceSettings.model_validate({"model": reranker_model, **common})
        self._stack = AsyncExitStack()
        self.bi: BiEncoder
        self.cross: CrossEncoder

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            bi = await asyncio.to_thread(open_bi_encoder, self._bi_settings)
            self.bi = BiEncoder(bi, runner_limits(self._bi_settings, max_token_count=bi.facts.max_token_count))
            await self.bi.start()
            stack.push_async_callback(self.bi.close)
            cross = await asyncio.to_thread(open_cross_encoder, self._cross_settings, default=default_model)
            limits = runner_limits(self._cross_settings, max_token_count=cross.facts.max_token_count)
            self.cross = CrossEncoder(cross, limits)
            await self.cross.start()
            stack.push_async_callback(self.cross.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def recommended(self) -> Recommended:
        """What the cross-encoder's configuration recommends."""
        learned = self.cross.model.learned
        mixings: dict[str, AnyMixing] = {}
        for stage, scores in ((DENSE, learned.score_mixings.dense), (HYBRID, learned.score_mixings.hybrid)):
            if scores:
                mixings[stage] = ScoreMixing(**scores.model_dump())
            elif learned.mixing:
                mixings[stage] = Mixing(**learned.mixing.model_dump())
        return Recommended(mixings, self.cross.facts.activation_name)

    @property
    def description(self) -> Mapping[str, str]:
        """What computes, for the report."""
        return {
            "how": "in process",
            "bi_encoder": f"{self.bi.model.folder.id} {self.bi.facts.fingerprint[:12]}",
            "cross_encoder": f"{self.cross.model.folder.id} {self.cross.facts.fingerprint[:12]}",
            "engine": f"{self.cross.engine.name} {self.cross.engine.dtype} on {self.cross.engine.device}",
        }

    async def identify(self, judged: JudgedSet, asking: Asking, progress: Progress) -> Mapping[str, str]:
        """What computes."""
        del judged, asking, progress  # nothing has to be made ready
        said = {"how": "in process"}
        for name, model in (("bi_encoder", self.bi), ("cross_encoder", self.cross)):
            engine = model.engine
            said[name] = f"{model.facts.fingerprint[:12]}, {engine.name} {engine.dtype} on {engine.device}"
        return said

    async def answers(self, judged: JudgedSet, asking: Asking, progress: Progress) -> AsyncGenerator[Answer, None]:
        """One answer a query, in the set's order."""
        documents = [Passage(each.id, each.title, each.text) for each in judged.documents]
        passages = [document.passage for document in documents]
        ids = [document.id for document in documents]
        vectors = await self.embed(passages, query=False, progress=progress, what=f"embed {judged.name}")
        lexical = Bm25Index(passages, language=asking.language, average_words=asking.average_words)
        places = {id_: at for at, id_ in enumerate(ids)}
        task = progress.add_task(f"search {judged.name}", total=len(judged.queries))

        async def score(found: tuple[JudgedQuery, Mapping[str, Order]]) -> Answer:
            query, stages = found
            wanted = ids if asking.exhaustive else asking.candidates(stages)
            scores = await self.score([query.text], [passages[places[id_]] for id_ in wanted])
            by_id = dict(zip(wanted, scores, strict=True))
            whole = _best(np.array(scores), ids, len(ids)) if asking.exhaustive else None
            return Answer(query=query, first_stages=stages, rerank_scores=by_id, exhaustive=whole)

        for start in range(0, len(judged.queries), _QUERIES_AT_ONCE):
            some = judged.queries[start : start + _QUERIES_AT_ONCE]
            embedded = await self.embed([query.text for query in some], query=True)
            similar = similarities(embedded, vectors, self.bi.facts.similarity)
            stages = [
                self._first_stages(ids, similar[at], lexical.scores(query.text), asking)
                for at, query in enumerate(some)
            ]
            async for answer in in_order(zip(some, stages, strict=True), score, at_once=_AT_ONCE):
                yield answer
                progress.advance(task)

    async def embed(
        self, texts: Sequence[str], *, query: bool, progress: Progress | None = None, what: str = ""
    ) -> Matrix:
        """Vectors of texts: float32 [texts, dimension]."""
        groups = [texts[start : start + _GROUP] for start in range(0, len(texts), _GROUP)]
        task = progress.add_task(what, total=len(texts)) if progress else None

        async def work(group: Sequence[str]) -> Matrix:
            embedded = await self.bi.embed(group, query=query, priority=Priority.BULK, wait_for_room=True)
            return embedded.vectors

        rows = []
        async for part in in_order(groups, work, at_once=_AT_ONCE):
            rows.append(part)
            if progress and task is not None:
                progress.advance(task, len(part))
        return np.concatenate(rows)

    async def score(self, firsts: Sequence[str], seconds: Sequence[str]) -> list[float]:
        """The cross-encoder's scores; `firsts` holds one text for all of `seconds`, or one for each."""
        groups = [
            (firsts if len(firsts) == 1 else firsts[start : start + _GROUP], seconds[start : start + _GROUP])
            for start in range(0, len(seconds), _GROUP)
        ]

        async def work(group: tuple[Sequence[str], Sequence[str]]) -> list[float]:
            scored = await self.cross.score(*group, priority=Priority.BULK)
            column: list[float] = scored.scores[:, 0].tolist()
            return column

        return [score async for part in in_order(groups, work, at_once=_AT_ONCE) for score in part]

    def _first_stages(
        self, ids: Sequence[str], similar: NDArray[np.float64], words: NDArray[np.float64], asking: Asking
    ) -> dict[str, Order]:
        # As deep as the gateway reads each for fusion.
        depth = max(asking.first_depth, FUSED_DEPTH)
        dense, lexical = _best(similar, ids, depth), _best(words, ids, depth, above=0.0)
        stages = {DENSE: dense, BM25: lexical, HYBRID: fuse(asking.fusion, dense, lexical)}
        return {name: order.first(asking.first_depth) for name, order in stages.items()}


def similarities(queries: Matrix, passages: Matrix, similarity: str) -> NDArray[np.float64]:
    """Of each query with each passage, higher is nearer: [queries, passages]."""
    if similarity == "cosine":
        queries, passages = (
            each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), np.finfo(np.float32).tiny)
            for each in (queries, passages)
        )
    elif similarity == "euclidean":
        squares = (queries**2).sum(axis=1)[:, None] + (passages**2).sum(axis=1)[None, :] - 2 * queries @ passages.T
        nearness: NDArray[np.float64] = -np.sqrt(np.maximum(squares, 0.0)).astype(np.float64)
        return nearness
    elif similarity != "dot":
        raise InvalidArgument(
            f"the bi-encoder compares by {similarity}, which is not done in process: leave --in-process out",
            field="in_process",
        )
    return (queries @ passages.T).astype(np.float64)


def _best(scores: NDArray[np.float64], ids: Sequence[str], count: int, *, above: float = -np.inf) -> Order:
    """The best of some documents, ties by id; those with scores above a bound."""
    chosen = np.flatnonzero(scores > above)
    if len(chosen) > count:
        least = np.partition(scores[chosen], len(chosen) - count)[len(chosen) - count]
        chosen = chosen[scores[chosen] >= least]
    best = sorted(chosen.tolist(), key=lambda at: (-scores[at], ids[at]))[:count]
    return Order([ids[at] for at in best], [float(scores[at]) for at in best])
