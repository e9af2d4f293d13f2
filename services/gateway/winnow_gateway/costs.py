"""What the stages of a search take in time, learned from the searches that ran. Pure: time comes in as numbers.

Reranking is the only stage whose time follows from what is asked of it:

    seconds = (fixed + per_token × tokens) × surcharge

`fixed` and `per_token` are fitted by least squares of the relative error over what was seen of each batch (tokens
scored so far, seconds so far); the surcharge is a high quantile of how much longer it took than that fit expected. All
of it is as the gateway waits for it, with queues and the network in it, because that is what a deadline is made of; and
all of it fades with every newer observation, so that it follows a load and a machine that change.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

CAUTION = 0.9
"""The quantile that plans are made with. What it leaves is caught by the clock: reranking stops when its time is up."""

_FADING = 0.97
_WINDOW = 128
_FIT_DECAY = 0.97
_SWEEPS = 8
_LARGEST_SURPRISE = 3.0
_TRUSTED_OBSERVATIONS = 6
_PASSAGE_SHARE = 0.1
_RETRY_SECONDS = 1.0
# A try that takes less than this share of what was expected shows that what was learned holds no more.
_DISPROVED = 0.5
_MOST_COLLECTIONS = 10_000


class FadingQuantile:
    """A quantile of a series of numbers, the newer ones counting for more."""

    def __init__(self, quantile: float = CAUTION) -> None:
        self._quantile = quantile
        self._values: deque[float] = deque(maxlen=_WINDOW)
        self._known: float | None = None

    @property
    def value(self) -> float | None:
        """The quantile; None before the first number."""
        if self._known is None and self._values:
            newest = len(self._values) - 1
            weighted = sorted((value, _FADING ** (newest - age)) for age, value in enumerate(self._values))
            bound = self._quantile * sum(weight for _, weight in weighted)
            seen = 0.0
            for value, weight in weighted:
                seen += weight
                self._known = value
                if seen >= bound:
                    break
        return self._known

    def observe(self, value: float) -> None:
        """Takes in the next number."""
        self._values.append(value)
        self._known = None


@dataclass(frozen=True, slots=True)
class RerankCost:
    """What reranking the passages of a collection is expected to take."""

    fixed: float
    """Seconds before the first score, whatever is asked for."""
    per_token: float
    """Seconds for every token that the model reads."""
    tokens_per_passage: float
    """Tokens of a passage with the query beside it."""
    surcharge: float = 1.0
    """Factor for caution, at least 1."""

    def seconds(self, passages: int) -> float:
        """Seconds until so many passages are scored; 0 for none."""
        if passages <= 0:
            return 0.0
        return (self.fixed + self.per_token * self.tokens_per_passage * passages) * self.surcharge

    def affordable(self, seconds: float, *, most: int) -> int:
        """How many passages can be scored in that time, at most `most`."""
        each = self.per_token * self.tokens_per_passage * self.surcharge
        room = seconds - self.fixed * self.surcharge
        if most <= 0 or room < 0:
            return 0
        count = most if each <= 0 or room / each >= most else int(room / each)
        # The division rounds; the bound does not.
        while count > 0 and self.seconds(count) > seconds:
            count -= 1
        return count


COLD_RERANK_COST = RerankCost(fixed=0.005, per_token=5e-5, tokens_per_passage=128.0)
"""Before anything was measured: a small model on two good cores. Rather too hopeful than too careful: a plan that was
too deep is cut off by the clock and teaches, while one that reranks nothing learns nothing."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the planner is told: cautious seconds of each stage."""

    embed_seconds: float = 0.010
    retrieve_seconds: float = 0.010
    rerank: RerankCost = COLD_RERANK_COST


COLD_COSTS = Costs()
"""Before anything was measured."""


class RerankFit:
    """Learns what one model's reranking takes."""

    def __init__(self) -> None:
        self._coefficients = [COLD_RERANK_COST.fixed, COLD_RERANK_COST.per_token]
        self._squares = [[0.0, 0.0], [0.0, 0.0]]
        self._products = [0.0, 0.0]
        self._ratios = FadingQuantile()
        self.observations = 0

    @property
    def fixed(self) -> float:
        """Seconds before the first score."""
        return self._coefficients[0]

    @property
    def per_token(self) -> float:
        """Seconds a token."""
        return self._coefficients[1]

    @property
    def surcharge(self) -> float:
        """How much longer than the fit expects it takes when it takes long, at least 1."""
        return max(1.0, self._ratios.value or 1.0)

    def observe(self, tokens: float, seconds: float) -> None:
        """Learns that `tokens` were scored `seconds` after they were asked for."""
        if tokens < 1 or seconds <= 0:
            return
        # No clock tells less from nothing.
        seconds = max(seconds, 1e-6)
        expected = self._coefficients[0] + self._coefficients[1] * tokens
        if self.observations >= _TRUSTED_OBSERVATIONS:
            self._ratios.observe(min(seconds / expected, _LARGEST_SURPRISE))
            # What held up one search for its own reasons must not throw off the next hundred.
            seconds = min(max(seconds, expected / _LARGEST_SURPRISE), expected * _LARGEST_SURPRISE)
        features = (1.0 / seconds, tokens / seconds)
        for i in range(2):
            self._products[i] = self._products[i] * _FIT_DECAY + features[i]
            for j in range(2):
                self._squares[i][j] = self._squares[i][j] * _FIT_DECAY + features[i] * features[j]
        self.observations += 1
        self._solve()

    def _solve(self) -> None:
        """Non-negative least squares by coordinate descent, from the last solution on."""
        for _ in range(_SWEEPS):
            for i in range(2):
                square = self._squares[i][i]
                residual = self._products[i] - sum(self._squares[i][j] * self._coefficients[j] for j in range(2))
                self._coefficients[i] = max(0.0, self._coefficients[i] + residual / square)
        if not any(self._coefficients):
            self._coefficients[0] = COLD_RERANK_COST.fixed


class CostBook:
    """What was learned of every stage, by collection and by reranking model."""

    def __init__(self) -> None:
        self._embed = FadingQuantile()
        self._retrieve: dict[str, FadingQuantile] = {}
        self._fits: dict[str, RerankFit] = {}
        self._passages: dict[tuple[str, str], float] = {}
        self._model = ""
        self._learned_at = -math.inf
        self._starved = False
        self._trying = False

    def costs(self, collection: str, *, now: float) -> Costs:
        """What to plan a search of a collection with.

        If reranking was last found too dear for the time there was, and nothing has shown otherwise for a second, hope
        is tried again once: else one bad moment would keep short searches from the reranker for ever.
        """
        retrieve = self._retrieve.get(collection)
        fit = self._fits.get(self._model)
        rerank = COLD_RERANK_COST
        if fit is not None and fit.observations:
            rerank = RerankCost(fit.fixed, fit.per_token, rerank.tokens_per_passage, fit.surcharge)
            if self._starved and now - self._learned_at > _RETRY_SECONDS:
                self._learned_at = now
                self._trying = True
                rerank = RerankCost(
                    min(fit.fixed, COLD_RERANK_COST.fixed),
                    min(fit.per_token, COLD_RERANK_COST.per_token),
                    rerank.tokens_per_passage,
                )
        tokens = self._passages.get((collection, self._model), rerank.tokens_per_passage)
        return Costs(
            embed_seconds=self._embed.value or COLD_COSTS.embed_seconds,
            retrieve_seconds=(retrieve.value if retrieve else None) or COLD_COSTS.retrieve_seconds,
            rerank=replace(rerank, tokens_per_passage=tokens),
        )

    def embedded(self, seconds: float) -> None:
        """Learns what embedding a query took."""
        self._embed.observe(seconds)

    def retrieved(self, collection: str, seconds: float) -> None:
        """Learns what retrieving took."""
        if collection not in self._retrieve and len(self._retrieve) >= _MOST_COLLECTIONS:
            self._retrieve.clear()
            self._passages.clear()
        self._retrieve.setdefault(collection, FadingQuantile()).observe(seconds)

    def reranked(
        self, collection: str, model: str, *, passages: int, tokens: int, all_tokens: int, seconds: float, now: float
    ) -> None:
        """Learns from one batch: its passages and tokens; all tokens scored since the call began, and the seconds."""
        self._model = model
        self._learned_at = now
        self._starved = False
        fit = self._fits.setdefault(model, RerankFit())
        if self._trying and seconds < _DISPROVED * (fit.fixed + fit.per_token * all_tokens):
            fit = self._fits[model] = RerankFit()
        self._trying = False
        fit.observe(all_tokens, seconds)
        if passages:
            key, each = (collection, model), tokens / passages
            known = self._passages.get(key, each)
            self._passages[key] = known + _PASSAGE_SHARE * (each - known)

    def waited_in_vain(self, collection: str, *, seconds: float, now: float) -> None:
        """Learns that not one passage was scored in that time: it takes at least so long."""
        fit = self._fits.setdefault(self._model, RerankFit())
        tokens = self._passages.get((collection, self._model), COLD_RERANK_COST.tokens_per_passage)
        if fit.fixed + fit.per_token * tokens < seconds:
            fit.observe(tokens, seconds)
        self._learned_at = now

    def unaffordable(self) -> None:
        """Notes that a plan found no time for reranking at all."""
        self._starved = True
