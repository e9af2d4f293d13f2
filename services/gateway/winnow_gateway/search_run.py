"""One search from its plan to its answer: embed the query, retrieve, rerank, order; and what to do when a stage
fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from winnow_gateway import outcomes
from winnow_gateway.backends import Backends
from winnow_gateway.breaking import BreakerOpen
from winnow_gateway.budgets import Budget
from winnow_gateway.candidate_order import CandidateOrder, chosen_mixing, needs_model
from winnow_gateway.collections import CollectionSpec
from winnow_gateway.costs import Costs
from winnow_gateway.documents import DocumentView, split_text
from winnow_gateway.exhausting import fetch_all
from winnow_gateway.filters import filtered_keys
from winnow_gateway.guarding import guarded
from winnow_gateway.insisting import floor_missed, unranked
from winnow_gateway.ordering import Placed, SettledTop
from winnow_gateway.outcomes import Cause, Degradation, Hit, SearchOutcome, SearchTiming
from winnow_gateway.planning import Effort, Plan, RetrievalKind, SearchMode, Shortfall, extend, refine
from winnow_gateway.ports import Candidate, EmbeddedTexts, RerankerModel
from winnow_gateway.queries import SearchQuery
from winnow_gateway.reranking import Reranking
from winnow_rpc import tracing
from winnow_rpc.faults import (
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
)

# A deadline of 0 would mean none to some.
_LEAST_SECONDS = 0.001


class SearchRun:
    """One search. `states` runs it, once."""

    def __init__(
        self,
        *,
        query: SearchQuery,
        spec: CollectionSpec,
        plan: Plan,
        costs: Costs,
        budget: Budget,
        timing: SearchTiming,
        backends: Backends,
        economy_batches: int,
        clock: Callable[[], float],
    ) -> None:
        # A graph whose index does not know the field of a filter loses most of what fits; a scan loses nothing.
        indexed = {field.key for field in spec.metadata_fields}
        scans = not indexed.issuperset(filtered_keys(query.filter)) or plan.mode is SearchMode.EXHAUSTIVE
        self._query = replace(query, exact=True) if scans else query
        self._spec = spec
        self._plan = plan
        self._kind = plan.kind
        self._costs = costs
        self._budget = budget
        self._timing = timing
        self._backends = backends
        self._economy_batches = economy_batches
        self._clock = clock
        self._degradations: list[Degradation] = []
        self._embedder_fingerprint = ""
        self._candidates: Sequence[Candidate] = ()
        self._reranking = Reranking()
        self._order = CandidateOrder()
        self._settled = False

    async def states(self, *, progressive: bool) -> AsyncGenerator[SearchOutcome, None]:
        """The answer, last; with `progressive`, before it the order of retrieval and every better one."""
        # Asked meanwhile, for it is nearly always known already.
        may_rerank = self._plan.wish and self._plan.shortfall is not Shortfall.NO_RERANKER
        asking = asyncio.ensure_future(self._ask_model()) if may_rerank else None
        try:
            vector = await self._embed()
            with tracing.span("retrieve", "client") as span:
                await self._retrieve(vector)
                span.set(kind=self._kind.value, candidates=len(self._candidates))
            if asking and self._plan.depth and self._candidates:
                if progressive:
                    yield self._outcome(self._place(), final=False)
                with tracing.span("rerank", "client") as span:
                    async with aclosing(self._rerank(asking)) as batches:
                        async for _ in batches:
                            # Where nobody looks on, the order is not made: after each batch it took as much time as the
                            # rest of the gateway's part of a search together.
                            if progressive:
                                yield self._outcome(self._place(), final=False)
                    span.set(depth=self._plan.depth, reranked=len(self._reranking.scores))
            with tracing.span("order"):
                answer = await self._answer()
            yield answer
        finally:
            if asking:
                asking.cancel()

    async def _embed(self) -> NDArray[np.float32] | None:
        """The query's vector; None where BM25 alone is to answer."""
        if self._query.mode is SearchMode.LEXICAL:
            return None
        fallback = self._spec.lexical is not None
        left = self._budget.until_deadline
        if fallback:
            # What the answer cannot do without is retrieval; what embedding leaves of the time must be enough for it.
            left = min(left, max(0.0, self._budget.left - self._costs.retrieve_seconds))
        entered = self._clock()
        try:
            if self._kind is RetrievalKind.LEXICAL:
                raise BreakerOpen("the embedder is given a pause")
            patience = 4 * self._costs.embed_seconds
            with tracing.span("embed", "client"):
                breaker = self._backends.embedder_breaker(self._spec.embedder.fingerprint)
                async with guarded(breaker, "embedder", left, patience, clock=self._clock):
                    embedded = await self._backends.embedder.embed_query(
                        self._query.query, fingerprint=self._spec.embedder.fingerprint, timeout=left
                    )
        except FailedPrecondition:
            # Says which two models it is about, where it can.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._budget.until_deadline):
                    await self._backends.catalog.require_served(self._spec)
            raise
        except InvalidArgument:
            raise
        except Fault as fault:
            self._embedded(entered)
            if not fallback:
                raise
            self._degradations.append(outcomes.embedder_unavailable(Cause.of(fault), fault))
            self._kind = RetrievalKind.LEXICAL
            return None
        self._embedded(entered, embedded)
        vector: NDArray[np.float32] = embedded.vectors[0]
        return vector

    def _embedded(self, entered: float, embedded: EmbeddedTexts | None = None) -> None:
        seconds = self._clock() - entered
        self._timing.embed_micros += round(seconds * 1e6)
        if embedded is None:
            return
        self._backends.book.embedded(seconds)
        self._timing.embed_inference_micros = embedded.inference_micros
        self._timing.embed_token_count = embedded.token_count
        self._embedder_fingerprint = embedded.model_fingerprint
        if dropped := embedded.dropped_token_counts.get(0, 0):
            self._degradations.append(outcomes.query_truncated(dropped))

    async def _retrieve(self, vector: NDArray[np.float32] | None) -> None:
        query, plan = self._query, self._plan
        entered = self._clock()
        everything = plan.mode is SearchMode.EXHAUSTIVE
        view = DocumentView(text=query.view.text or plan.wish > 0, metadata=query.view.metadata)
        if everything:
            # The order alone: the documents come in pages, or they might not fit one message.
            view = DocumentView(text=False, metadata=False)
        left = self._budget.until_deadline
        try:
            async with guarded(self._backends.index_breaker, "index", left, 1.0, clock=self._clock):
                self._candidates = await self._backends.index.retrieve(
                    self._spec.stored_as,
                    vector=vector,
                    text=None if self._kind is RetrievalKind.DENSE else query.query,
                    fusion=query.fusion,
                    limit=plan.candidates,
                    filter_=query.filter,
                    view=view,
                    min_score=query.min_retrieval_score,
                    ef=query.ef,
                    exact=query.exact,
                    timeout=left,
                )
        except NotFound:
            self._backends.catalog.forget(query.collection)
            raise
        if everything:
            await self._fetch_all()
        seconds = self._clock() - entered
        self._timing.retrieve_micros += round(seconds * 1e6)
        if not everything:
            self._backends.book.retrieved(query.collection, seconds)
        self._order = CandidateOrder(
            self._candidates, min_rerank_score=query.min_rerank_score, min_probability=query.min_probability
        )
        self._plan = refine(
            self._plan, cost=self._costs.rerank, seconds=self._stop_at() - self._clock(), candidates=self._readable()
        )

    async def _fetch_all(self) -> None:
        """Every document with its text; where time or the index fails, those that came."""
        fetched = await fetch_all(
            self._backends.index,
            self._spec.stored_as,
            self._query,
            self._candidates,
            seconds=max(0.0, self._work_until() - self._clock()),
            clock=self._clock,
        )
        self._candidates = fetched.candidates
        if fetched.cause:
            floor = self._plan.floor
            if self._readable() < floor:
                # It is not known how many there are, and so not whether these are all.
                raise floor_missed(fetched.cause, fetched.fault, floor=floor, reached=0, backend="index")
            missed = max(1, self._plan.wish - fetched.count)
            self._degradations.append(outcomes.documents_missed(fetched.cause, fetched.fault, count=missed))
        self._plan = replace(self._plan, wish=max(self._plan.wish, len(self._candidates)))

    def _readable(self) -> int:
        """Candidates, best first, up to the first whose text is not there."""
        for position, candidate in enumerate(self._candidates):
            if candidate.head_only and not candidate.document.text:
                return position
        return len(self._candidates)

    def _work_until(self) -> float:
        """When all work for reranking stops, on the clock."""
        # A depth that is insisted on goes before a time that is only wished for.
        return self._budget.latest_stop if self._plan.floor else self._budget.stop_at

    def _stop_at(self) -> float:
        """When reranking stops, on the clock: so that what still has to be fetched for the answer can be."""
        stop_at = self._work_until()
        if self._query.view.text and any(candidate.head_only for candidate in self._candidates):
            stop_at -= self._costs.retrieve_seconds
        return stop_at

    async def _ask_model(self, fingerprint: str = "") -> RerankerModel | Fault | None:
        """The model, for the mixing that it recommends; None if that is not needed. A fault of the reranker's is
        returned."""
        if not needs_model(self._query):
            return None
        try:
            left = max(self._work_until() - self._clock(), _LEAST_SECONDS)
            return await self._backends.reranker.model(fingerprint=fingerprint, timeout=left)
        except Fault as fault:
            return fault

    async def _rerank(self, asking: asyncio.Future[RerankerModel | Fault | None]) -> AsyncGenerator[None, None]:
        """Stops after every batch, until it is done, its time is up, or the order has settled."""
        entered = self._clock()
        query, state = self._query, self._reranking
        settling = SettledTop(limit=query.limit, batches=self._economy_batches)
        if not await self._mix(asking):
            return
        try:
            while len(state.scores) < self._plan.depth:
                async with aclosing(self._call(len(state.scores))) as batches:
                    async for _ in batches:
                        # Another model may have taken the place of the one that was asked about.
                        if not await self._fits(state.fingerprint):
                            return
                        if query.effort is Effort.ECONOMY and settling.settled(self._place()) and self._deep_enough():
                            self._settled = True
                            return
                        yield
                if state.cause or len(state.scores) < self._plan.depth:
                    return
                left = self._stop_at() - self._clock()
                self._plan = extend(self._plan, cost=self._costs.rerank, seconds=left, candidates=self._readable())
        finally:
            self._timing.rerank_micros = round((self._clock() - entered) * 1e6)
            self._timing.rerank_inference_micros = state.inference_micros
            self._timing.rerank_token_count = state.token_count

    async def _mix(self, asking: Awaitable[RerankerModel | Fault | None]) -> bool:
        """Orders from now on as this model recommends; False if it does not come, so that nothing can be reranked."""
        try:
            async with asyncio.timeout(max(0.0, self._stop_at() - self._clock())):
                model = await asking
        except TimeoutError:
            model = DeadlineExceeded("the reranker did not say what its model is")
        if isinstance(model, Fault):
            self._reranking.give_up(model)
            self._backends.anytime.unreachable(model)
            return False
        self._order.mix(chosen_mixing(self._query, model, self._kind), model)
        return True

    async def _fits(self, fingerprint: str) -> bool:
        return self._order.fits(fingerprint) or await self._mix(self._ask_model(fingerprint))

    def _call(self, start: int) -> AsyncGenerator[None, None]:
        """Reranks the candidates of the plan from a position on."""
        documents = [candidate.document for candidate in self._candidates[start : self._plan.depth]]
        return self._backends.anytime.run(
            self._reranking,
            collection=self._query.collection,
            query=self._query.query,
            start=start,
            passages=[replace(document, text=split_text(document.text)[0]).passage for document in documents],
            cost=self._costs.rerank,
            stop_at=self._stop_at(),
        )

    def _deep_enough(self) -> bool:
        """The depth that the caller insists on is reached, or all there is."""
        return len(self._scores()) >= min(self._plan.floor, self._plan.wish)

    def _scores(self) -> Mapping[int, float]:
        return self._reranking.prefix(self._plan.depth)

    def _place(self) -> Sequence[Placed]:
        return self._order.place(self._scores(), self._reranking.probabilities)

    async def _answer(self) -> SearchOutcome:
        self._judge()
        outcome = self._outcome(self._place(), final=True)
        long = [hit.document.id for hit in outcome.hits if self._candidates[hit.place.position].head_only]
        if long and self._query.view.text:
            hits = await self._with_whole_texts(outcome.hits, long)
            outcome = replace(outcome, hits=hits, degradations=list(self._degradations))
        self._timing.total_micros = round(self._budget.elapsed * 1e6)
        return outcome

    def _judge(self) -> None:
        """Says in what the reranking was less than was wished for; raises where the caller will not have that."""
        plan, state, done = self._plan, self._reranking, len(self._scores())
        if not plan.wish or self._settled or done >= plan.wish:
            return
        cause = state.cause
        if cause is None and done < plan.depth:
            cause, state.fault = Cause.UNAVAILABLE, Fault("it left candidates out")
        if cause is None:
            cause = Cause.BREAKER_OPEN if plan.shortfall is Shortfall.NO_RERANKER else Cause.NO_TIME
        if self._candidates and not self._deep_enough():
            raise floor_missed(cause, state.fault, floor=min(plan.floor, plan.wish), reached=done)
        if self._candidates and not done and self._query.require_rerank:
            raise unranked(cause, state.fault)
        if done:
            self._degradations.append(outcomes.rerank_partial(cause, state.fault, reranked=done, wish=plan.wish))
        elif self._candidates:
            self._degradations.append(outcomes.rerank_skipped(cause, state.fault, missed=plan.wish))

    async def _with_whole_texts(self, hits: Sequence[Hit], long: Sequence[str]) -> list[Hit]:
        entered = self._clock()
        texts: Mapping[str, str] = {}
        try:
            # A part of what is left is for sending it all.
            left = 0.9 * self._budget.until_deadline
            async with guarded(self._backends.index_breaker, "index", left, 1.0, clock=self._clock):
                whole = await self._backends.index.texts(self._spec.stored_as, long)
            texts = whole.texts
            if whole.left_out:
                self._degradations.append(outcomes.texts_cut(Cause.TOO_LARGE, None, count=whole.left_out))
        except Fault as fault:
            self._degradations.append(outcomes.texts_cut(Cause.of(fault), fault, count=len(long)))
        self._timing.retrieve_micros += round((self._clock() - entered) * 1e6)
        # One that was deleted meanwhile keeps its head.
        return [
            replace(hit, document=replace(hit.document, text=texts.get(hit.document.id, hit.document.text)))
            for hit in hits
        ]

    def _hit(self, place: Placed) -> Hit:
        candidate = self._candidates[place.position]
        return Hit(
            candidate.document,
            place,
            dense=candidate.dense,
            lexical=candidate.lexical,
            probability=self._reranking.probabilities.get(place.position) if place.rerank else None,
        )

    def _outcome(self, placed: Sequence[Placed], *, final: bool) -> SearchOutcome:
        plan, scores = self._plan, self._scores()
        mode, reason = plan.mode, plan.reason
        if final and plan.wish and not scores and self._candidates and mode is not SearchMode.RETRIEVE:
            reason = f"{mode.value} was planned, but nothing could be reranked"
            mode = SearchMode.RETRIEVE
        elif self._settled:
            reason = f"{reason}; the first hits had settled after {len(scores)} of {plan.depth} candidates"
        self._timing.total_micros = round(self._budget.elapsed * 1e6)
        return SearchOutcome(
            hits=[self._hit(place) for place in placed[: self._query.limit]],
            mode=mode,
            mode_reason=reason,
            kind=self._kind,
            candidate_count=len(self._candidates),
            planned_depth=plan.depth,
            reranked_count=len(scores),
            timing=self._timing if final else replace(self._timing),
            degradations=list(self._degradations),
            embedder_fingerprint=self._embedder_fingerprint,
            reranker_fingerprint=self._reranking.fingerprint if scores else "",
            mixing=self._order.mixing if scores else None,
            final=final,
        )
