"""What a search will do. A pure function of the request, the time, the costs and the backends' health; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from winnow_gateway.costs import COLD_COSTS, Costs, RerankCost
from winnow_gateway.ports import no_lexical_index
from winnow_rpc.faults import FailedPrecondition

DEFAULT_LIMIT = 10
MAX_LIMIT = 1_000
DEFAULT_DEPTH = 100
MAX_DEPTH = 1_000
MAX_EXHAUSTIVE = 10_000
"""Documents of the largest collection that EXHAUSTIVE is offered for."""
MAX_CHOSEN_EXHAUSTIVE = 1_000
"""Documents of the largest collection for which AUTO chooses it, and then only for a caller who gave a budget."""
EXHAUSTIVE_PAGE = 500
"""Documents that are fetched at once for EXHAUSTIVE."""

# Plans are cautious, so there is often time for more than was planned. Fetching more candidates costs little.
_SPARE_CANDIDATES = 3


class SearchMode(Enum):
    """Which stages answer."""

    RETRIEVE = "retrieve"
    TWO_STAGE = "two-stage"
    EXHAUSTIVE = "exhaustive"
    LEXICAL = "lexical"
    AUTO = "auto"


class RetrievalKind(Enum):
    """What the first stage looks at."""

    DENSE = "dense"
    HYBRID = "hybrid"
    LEXICAL = "lexical"


class DepthPolicy(Enum):
    """What a depth means where time is short."""

    WISH = "wish"
    FLOOR = "floor"


class Effort(Enum):
    """How much reranking is worth."""

    FULL = "full"
    ECONOMY = "economy"


class Shortfall(Enum):
    """Why a plan reranks less than was wished for."""

    NO_TIME = "no-time"
    NO_RERANKER = "no-reranker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a plan follows from."""

    collection: str = ""
    """Its name, for what is said of it."""
    mode: SearchMode = SearchMode.AUTO
    limit: int = DEFAULT_LIMIT
    depth: int | None = None
    """Candidates to rerank; None: the caller did not say."""
    depth_policy: DepthPolicy = DepthPolicy.WISH
    kind: RetrievalKind | None = None
    """What the first stage is to look at; None: all there is."""
    document_count: int = 0
    """Documents of the collection; 0: none, or it is not known."""
    fresh: bool = True
    """The count is of now. Else there may be many more, of which a depth must not fall short."""
    lexical: bool = False
    """The collection has BM25."""
    seconds: float = 30.0
    """Time left until the answer should be ready."""
    has_budget: bool = False
    """The caller named that time, and so means it to be used."""
    costs: Costs = COLD_COSTS
    embedder_up: bool = True
    reranker_up: bool = True


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Time for each stage."""

    embed: float
    retrieve: float
    rerank: float

    @property
    def total(self) -> float:
        """All together."""
        return self.embed + self.retrieve + self.rerank


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search will do."""

    mode: SearchMode
    reason: str
    """Why this mode, for a person."""
    kind: RetrievalKind
    candidates: int
    """How many to retrieve."""
    wish: int
    """How many would be reranked if there were time; 0 where the mode reranks nothing."""
    depth: int
    """How many of the candidates to rerank, best first; 0: none."""
    floor: int
    """The depth under which the caller will not have it; 0: none."""
    seconds: StageSeconds
    shortfall: Shortfall | None = None
    """Why `depth` is less than `wish`."""


def plan_search(situation: Situation) -> Plan:
    """Plans a search.

    Raises FailedPrecondition: NO_LEXICAL_INDEX where the collection lacks the BM25 that is asked for,
    COLLECTION_TOO_LARGE for EXHAUSTIVE, DEPTH_UNAFFORDABLE where the caller insists on a depth that the time cannot
    pay. Without a reranker the plan has its `floor` all the same, and a `depth` of 0: its caller is to refuse it.
    """
    s = situation
    kind = _kind(s)
    left = max(0.0, s.seconds)
    embed = min(left, s.costs.embed_seconds) if kind is not RetrievalKind.LEXICAL else 0.0
    retrieve = min(left - embed, s.costs.retrieve_seconds)
    if s.mode in (SearchMode.RETRIEVE, SearchMode.LEXICAL):
        seconds = StageSeconds(embed, retrieve, 0.0)
        return Plan(
            mode=s.mode, reason="asked for", kind=kind, candidates=s.limit, wish=0, depth=0, floor=0, seconds=seconds
        )
    if s.mode is SearchMode.EXHAUSTIVE:
        if s.document_count > MAX_EXHAUSTIVE:
            raise FailedPrecondition(
                f"the collection has {s.document_count:,} documents; EXHAUSTIVE is for {MAX_EXHAUSTIVE:,} at most",
                reason="COLLECTION_TOO_LARGE",
                metadata={"document_count": str(s.document_count), "limit": str(MAX_EXHAUSTIVE)},
            )
        return _exhaustive(s, kind, embed, reason="asked for")
    if s.mode is SearchMode.AUTO and s.reranker_up and 0 < s.document_count <= _most_exhaustive(s):
        reason = f"the time is enough to rerank all {s.document_count} documents"
        plan = _exhaustive(s, kind, embed, reason=reason, floor=False)
        if plan.depth == s.document_count:
            return replace(plan, floor=plan.depth if _insists(s) else 0)
    return _two_stage(s, kind, embed, retrieve)


def refine(plan: Plan, *, cost: RerankCost, seconds: float, candidates: int) -> Plan:
    """The plan once it is known what was retrieved and how much time is really left for reranking.

    The depth never rises over the wish or the candidates, nor falls under the floor.
    """
    # Fewer than were asked for: there are no more. As many: there may be.
    wish = min(plan.wish, candidates) if candidates < plan.candidates else plan.wish
    most = min(wish, candidates)
    if not most or plan.shortfall is Shortfall.NO_RERANKER:
        return replace(plan, wish=wish, depth=0)
    depth = max(cost.affordable(max(0.0, seconds), most=most), min(plan.floor, most))
    mode, reason = plan.mode, plan.reason
    if depth and mode is SearchMode.RETRIEVE:
        mode, reason = SearchMode.TWO_STAGE, "as deep as the time allows"
    return replace(
        plan,
        mode=mode,
        reason=reason,
        wish=wish,
        depth=depth,
        seconds=replace(plan.seconds, rerank=cost.seconds(depth)),
        shortfall=Shortfall.NO_TIME if depth < wish else None,
    )


def extend(plan: Plan, *, cost: RerankCost, seconds: float, candidates: int) -> Plan:
    """The plan once its depth is reached: deeper, if more of the wish and the candidates fits the time that is left."""
    more = cost.affordable(max(0.0, seconds), most=min(plan.wish, candidates) - plan.depth)
    depth = plan.depth + more
    return replace(
        plan,
        depth=depth,
        seconds=replace(plan.seconds, rerank=cost.seconds(depth)),
        shortfall=Shortfall.NO_TIME if depth < plan.wish else None,
    )


def _kind(s: Situation) -> RetrievalKind:
    wants_lexical = s.mode is SearchMode.LEXICAL or s.kind is RetrievalKind.HYBRID
    if wants_lexical and not s.lexical:
        raise no_lexical_index(s.collection)
    if s.mode is SearchMode.LEXICAL or (s.lexical and not s.embedder_up):
        return RetrievalKind.LEXICAL
    return s.kind or (RetrievalKind.HYBRID if s.lexical else RetrievalKind.DENSE)


def _most_exhaustive(s: Situation) -> int:
    """Up to how many documents AUTO may rerank all: no more than the caller's depth, or than he can be thought to
    want."""
    return s.depth or (MAX_CHOSEN_EXHAUSTIVE if s.has_budget else DEFAULT_DEPTH)


def _exhaustive(s: Situation, kind: RetrievalKind, embed: float, *, reason: str, floor: bool = True) -> Plan:
    left = max(0.0, s.seconds)
    pages = 1 + -(-s.document_count // EXHAUSTIVE_PAGE)
    retrieve = min(left - embed, s.costs.retrieve_seconds * pages)
    insisted = min(s.depth or s.document_count, s.document_count) if floor and _insists(s) else 0
    depth, shortfall = _depth(s, s.document_count, insisted, left - embed - retrieve)
    return Plan(
        mode=SearchMode.EXHAUSTIVE if depth else SearchMode.RETRIEVE,
        reason=reason if depth else _instead(s, shortfall),
        kind=kind,
        candidates=max(s.limit, s.document_count) if depth else s.limit,
        wish=s.document_count,
        depth=depth,
        floor=insisted,
        seconds=StageSeconds(embed, retrieve, s.costs.rerank.seconds(depth)),
        shortfall=shortfall,
    )


def _two_stage(s: Situation, kind: RetrievalKind, embed: float, retrieve: float) -> Plan:
    wish = s.depth or DEFAULT_DEPTH
    if s.document_count and s.fresh:
        wish = min(wish, s.document_count)
    insisted = wish if _insists(s) else 0
    depth, shortfall = _depth(s, wish, insisted, max(0.0, s.seconds) - embed - retrieve)
    if not depth:
        mode, reason = SearchMode.RETRIEVE, _instead(s, shortfall)
    elif s.mode is SearchMode.TWO_STAGE:
        mode, reason = SearchMode.TWO_STAGE, "asked for"
    else:
        mode = SearchMode.TWO_STAGE
        reason = "as deep as the time allows" if shortfall else "the usual, with time enough"
    fetched = min(wish, depth * _SPARE_CANDIDATES)
    return Plan(
        mode=mode,
        reason=reason,
        kind=kind,
        candidates=max(s.limit, fetched),
        wish=wish,
        depth=depth,
        floor=insisted,
        seconds=StageSeconds(embed, retrieve, s.costs.rerank.seconds(depth)),
        shortfall=shortfall,
    )


def _insists(s: Situation) -> bool:
    return s.depth_policy is DepthPolicy.FLOOR


def _depth(s: Situation, wish: int, insisted: int, seconds: float) -> tuple[int, Shortfall | None]:
    """How deep to rerank in that time. Raises FailedPrecondition where that is less than is insisted on."""
    if not s.reranker_up:
        return 0, Shortfall.NO_RERANKER if wish else None
    depth = s.costs.rerank.affordable(seconds, most=wish)
    if depth < insisted:
        needed = s.costs.rerank.seconds(insisted)
        raise FailedPrecondition(
            f"reranking {insisted} candidates takes about {needed * 1000:,.0f} ms, and there are "
            f"{max(0.0, seconds) * 1000:,.0f} ms for it: enough for {depth}",
            reason="DEPTH_UNAFFORDABLE",
            metadata={
                "depth": str(insisted),
                "affordable_depth": str(depth),
                "needed_micros": str(round(needed * 1e6)),
                "left_micros": str(round(max(0.0, seconds) * 1e6)),
            },
        )
    return depth, Shortfall.NO_TIME if depth < wish else None


def _instead(s: Situation, shortfall: Shortfall | None) -> str:
    """Why retrieval alone answers what was to be reranked."""
    asked = "" if s.mode is SearchMode.AUTO else f"{s.mode.value} was asked for, but "
    if shortfall is Shortfall.NO_RERANKER:
        return f"{asked}the reranker is not to be had"
    if shortfall is Shortfall.NO_TIME:
        return f"{asked}there is no time to rerank"
    return f"{asked}there is nothing to rerank"
