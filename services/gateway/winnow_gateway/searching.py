"""Searches: each gets its budget, its plan and its place, and then runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from winnow_gateway.admission import Admission, AdmissionSettings
from winnow_gateway.backends import Backends
from winnow_gateway.breaking import BreakerSettings, CircuitBreaker
from winnow_gateway.budgets import Budget
from winnow_gateway.catalog import Catalog
from winnow_gateway.collections import Collection
from winnow_gateway.costs import CostBook, Costs
from winnow_gateway.insisting import floor_missed, unranked
from winnow_gateway.outcomes import Cause, SearchOutcome, SearchTiming
from winnow_gateway.planning import DepthPolicy, Plan, SearchMode, Shortfall, Situation, plan_search
from winnow_gateway.ports import Embedder, Index, Reranker
from winnow_gateway.queries import SearchQuery
from winnow_gateway.reranking import AnytimeReranker
from winnow_gateway.search_run import SearchRun
from winnow_rpc import tracing
from winnow_rpc.deferring import soon
from winnow_rpc.faults import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound

# As the catalog calls it, and as the embedder does.
_ANOTHER_MODEL = frozenset(("EMBEDDER_MISMATCH", "MODEL_MISMATCH"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How searches spend their time."""

    margin_seconds: float = 0.008
    """What it takes to answer once the work has stopped."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    economy_batches: int = 3
    """Batches after which an order that has not changed counts as settled for a caller who asked for economy."""


class Searcher:
    """Runs searches. What it keeps between them: costs, the backends' health, and the work in hand."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        embedder: Embedder,
        reranker: Reranker,
        index: Index,
        settings: SearchSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._settings = settings or SearchSettings()
        self._book = CostBook()
        self._admission = Admission(self._settings.admission)
        self.on_answer: Callable[[SearchOutcome], None] = lambda outcome: None
        """Called with every answer."""

        def breaker() -> CircuitBreaker:
            return CircuitBreaker(clock=clock, settings=self._settings.breaker)

        self._reranker_breaker = breaker()
        self._backends = Backends(
            catalog=catalog,
            embedder=embedder,
            embedder_breakers={name: breaker() for name in embedder.backends},
            index=index,
            index_breaker=breaker(),
            reranker=reranker,
            anytime=AnytimeReranker(reranker=reranker, breaker=self._reranker_breaker, book=self._book, clock=clock),
            book=self._book,
        )

    @property
    def in_progress(self) -> int:
        """Searches in hand."""
        return self._admission.searches

    @property
    def breakers(self) -> Mapping[str, CircuitBreaker]:
        """The breaker of each backend, by its name."""
        return {
            **self._backends.embedder_breakers,
            "index": self._backends.index_breaker,
            "reranker": self._reranker_breaker,
        }

    async def search(self, query: SearchQuery) -> SearchOutcome:
        """Answers a search: the last state of its stream."""
        async with aclosing(self._states(query, progressive=False)) as states:
            async for outcome in states:
                if outcome.final:
                    return outcome
        raise AssertionError("a search ends with its answer or with a fault")

    def stream(self, query: SearchQuery) -> AsyncGenerator[SearchOutcome, None]:
        """The order of retrieval at once, then better ones as they form; the last is the answer."""
        return self._states(query, progressive=True)

    async def _states(self, query: SearchQuery, *, progressive: bool) -> AsyncGenerator[SearchOutcome, None]:
        budget = Budget(
            deadline_seconds=query.timeout,
            budget_seconds=query.budget,
            margin_seconds=self._settings.margin_seconds,
            clock=self._clock,
        )
        _check_consistent(query)
        timing = SearchTiming()
        # Mostly from memory. What is promised for a number of documents must not rest on an old count.
        fresh = query.depth_policy is DepthPolicy.FLOOR or query.mode is SearchMode.EXHAUSTIVE
        collection = await self._collection(query, budget, timing, fresh=fresh)
        try:
            async with aclosing(
                self._run(query, collection, budget, timing, fresh=fresh, progressive=progressive)
            ) as states:
                async for state in states:
                    yield state
            return
        except (NotFound, FailedPrecondition) as fault:
            if isinstance(fault, FailedPrecondition) and fault.reason not in _ANOTHER_MODEL:
                raise
            # Nothing was answered yet. It may have been re-embedded meanwhile, and what was remembered of it is gone.
            former = collection.spec.stored_as
            collection = await self._collection(query, budget, timing, fresh=True)
            if collection.spec.stored_as == former:
                raise
        async with aclosing(
            self._run(query, collection, budget, timing, fresh=True, progressive=progressive)
        ) as states:
            async for state in states:
                yield state

    async def _run(
        self,
        query: SearchQuery,
        collection: Collection,
        budget: Budget,
        timing: SearchTiming,
        *,
        fresh: bool,
        progressive: bool,
    ) -> AsyncGenerator[SearchOutcome, None]:
        """`fresh`: the collection is as it is now, and so is its count of documents."""
        with tracing.span("plan") as span:
            costs = self._book.costs(query.collection, now=self._clock())
            plan = self._plan(query, collection, costs, budget, fresh=fresh)
            if plan.mode is SearchMode.EXHAUSTIVE and not fresh:
                # The few documents of which AUTO would rerank all may be many by now.
                collection = await self._collection(query, budget, timing, fresh=True)
                plan = self._plan(query, collection, costs, budget, fresh=True)
            span.set(mode=plan.mode.value, why=plan.reason, candidates=plan.candidates, depth=plan.depth)
        # What has hardly any time takes its few milliseconds of the others' all the same.
        left = max(budget.left, costs.embed_seconds + costs.retrieve_seconds)
        with self._admission.admitted(work_seconds=plan.seconds.total, left_seconds=left):
            run = SearchRun(
                query=query,
                spec=collection.spec,
                plan=plan,
                costs=costs,
                budget=budget,
                timing=timing,
                backends=self._backends,
                economy_batches=self._settings.economy_batches,
                clock=self._clock,
            )
            async with aclosing(run.states(progressive=progressive)) as states:
                async for state in states:
                    if state.final:
                        soon(self.on_answer, state)
                        _describe(query, state)
                    yield state

    async def _collection(self, query: SearchQuery, budget: Budget, timing: SearchTiming, *, fresh: bool) -> Collection:
        try:
            async with asyncio.timeout(budget.until_deadline):
                collection = await self._catalog.recent(query.collection, fresh=fresh)
        except TimeoutError:
            raise DeadlineExceeded("the index did not say what the collection is", reason="INDEX_TIMEOUT") from None
        timing.retrieve_micros = round(budget.elapsed * 1e6)
        return collection

    def _plan(self, query: SearchQuery, collection: Collection, costs: Costs, budget: Budget, *, fresh: bool) -> Plan:
        plan = plan_search(
            Situation(
                collection=query.collection,
                mode=query.mode,
                limit=query.limit,
                depth=query.depth,
                depth_policy=query.depth_policy,
                kind=query.kind,
                document_count=collection.document_count,
                fresh=fresh,
                lexical=collection.spec.lexical is not None,
                seconds=budget.left,
                has_budget=budget.has_budget,
                costs=costs,
                embedder_up=self._backends.embedder_breaker(collection.spec.embedder.fingerprint).admits,
                reranker_up=self._reranker_breaker.admits,
            )
        )
        if plan.wish and not plan.depth:
            cause = Cause.BREAKER_OPEN
            if plan.shortfall is Shortfall.NO_TIME:
                self._book.unaffordable()
                cause = Cause.NO_TIME
            retry_after = self._reranker_breaker.retry_after or None
            if plan.floor:
                raise floor_missed(cause, None, floor=plan.floor, reached=0, retry_after=retry_after)
            if query.require_rerank:
                raise unranked(cause, None, retry_after=retry_after)
        return plan


def _describe(query: SearchQuery, outcome: SearchOutcome) -> None:
    """Says on the span of the call what came of the search. Not the query: texts are no business of who traces."""
    span = tracing.current()
    if span.recording:
        span.set(
            collection=query.collection,
            mode=outcome.mode.value,
            mode_reason=outcome.mode_reason,
            hits=len(outcome.hits),
            candidates=outcome.candidate_count,
            reranked=outcome.reranked_count,
            degradations=", ".join(f"{each.kind.value} {each.reason}" for each in outcome.degradations),
        )


def _check_consistent(query: SearchQuery) -> None:
    if query.require_rerank and query.mode in (SearchMode.RETRIEVE, SearchMode.LEXICAL):
        raise InvalidArgument(
            f"require_rerank is set, but the mode {query.mode.name} reranks nothing",
            field="require_rerank",
            reason="CONTRADICTION",
        )
    if query.depth_policy is DepthPolicy.FLOOR and query.mode in (SearchMode.RETRIEVE, SearchMode.LEXICAL):
        raise InvalidArgument(
            f"depth_policy is FLOOR, but the mode {query.mode.name} reranks nothing",
            field="depth_policy",
            reason="CONTRADICTION",
        )
