"""The systems that are compared, and the order that each would give for an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winnow_gateway.mixing import ScoreMixing, first_stage_features, mixed_scores
from winnow_gateway.ordering import Fusion, Mixing, StagePlace, splice
from winnow_gateway.planning import DEFAULT_LIMIT
from winnow_gateway.qdrant_retrieval import FUSED_DEPTH
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, AnyMixing, Order, Recommended, fuse

EXHAUSTIVE = "exhaustive"
"""The cross-encoder over every document."""
RECOMMENDED = "mixed"
"""What a system is called that mixes as the model's configuration says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A way to answer a query."""

    name: str
    stage: str = ""
    """The first stage; empty for EXHAUSTIVE."""
    fusion: Fusion | None = None
    """Another fusion of DENSE and BM25 as the first stage."""
    depth: int = 0
    """How many candidates are reranked."""
    mixing: AnyMixing | None = None
    """How both stages are mixed; None: the reranker orders alone."""
    activation: str = "identity"
    """Of the reranker, for a mixing of scores."""

    def retrieved(self, answer: Answer) -> Order:
        """What the first stage gives, best first; for EXHAUSTIVE every document."""
        if self.fusion:
            dense, lexical = answer.first_stages[DENSE], answer.first_stages[BM25]
            # No deeper than other first stages, or it would find more by that alone.
            return fuse(self.fusion, dense, lexical).first(max(len(dense.ids), len(lexical.ids)))
        if self.stage:
            return answer.first_stages[self.stage]
        assert answer.exhaustive is not None, "asked for what was not measured"
        return answer.exhaustive

    def order(self, answer: Answer) -> Order:
        """What it answers: reranked candidates first, then the others as retrieved, by the gateway's own rule."""
        retrieved = self.retrieved(answer)
        if not self.depth:
            return retrieved
        scores = {at: answer.rerank_scores[id_] for at, id_ in enumerate(retrieved.ids[: self.depth])}
        placed = splice(
            retrieved.scores,
            scores,
            mixing=self.mixing if isinstance(self.mixing, Mixing) else None,
            mixed_scores=self._mixed(answer, retrieved, scores) if isinstance(self.mixing, ScoreMixing) else None,
        )
        return Order([retrieved.ids[each.position] for each in placed], [each.score for each in placed])

    def _mixed(self, answer: Answer, retrieved: Order, scores: Mapping[int, float]) -> dict[int, float]:
        """As the gateway mixes the candidates of a search of this depth: they alone set the scale."""
        assert isinstance(self.mixing, ScoreMixing)
        ids = retrieved.ids[: max(self.depth, DEFAULT_LIMIT)]

        def places(stage: str) -> list[StagePlace | None]:
            if self.stage not in (stage, HYBRID):
                return [None] * len(ids)
            order = answer.first_stages[stage].first(max(self.depth, FUSED_DEPTH))
            found = {
                id_: StagePlace(score, rank)
                for rank, (id_, score) in enumerate(zip(order.ids, order.scores, strict=True), start=1)
            }
            return [found.get(id_) for id_ in ids]

        features = first_stage_features(places(DENSE), places(BM25))
        return mixed_scores(features, scores, mixing=self.mixing, activation=self.activation)


def systems(
    *,
    depths: Sequence[int],
    rerank_over: Sequence[str] = (DENSE, HYBRID),
    recommended: Recommended | None = None,
    mixings: Sequence[Mixing] = (),
    fusions: Sequence[Fusion] = (),
    exhaustive: bool = False,
) -> list[System]:
    """First stages, then reranking of each at each depth: by the reranker alone, as its model recommends, and by every
    other mixing."""
    made = [System(name=stage, stage=stage) for stage in (DENSE, BM25, HYBRID)]
    made += [System(name=fusion_name(fusion), fusion=fusion) for fusion in fusions]
    for stage in rerank_over:
        for depth in depths:
            made.append(System(name=f"{stage}, rerank {depth}", stage=stage, depth=depth))
            named: dict[str, AnyMixing] = {mixing_name(mixing): mixing for mixing in mixings}
            if recommended and stage in recommended.mixings:
                named = {RECOMMENDED: recommended.mixings[stage], **named}
            made += [
                System(
                    name=f"{stage}, rerank {depth}, {name}",
                    stage=stage,
                    depth=depth,
                    mixing=mixing,
                    activation=recommended.activation if recommended else "",
                )
                for name, mixing in named.items()
            ]
    return [*made, System(name=EXHAUSTIVE)] if exhaustive else made


def fusion_name(fusion: Fusion) -> str:
    """What a table calls a fusion."""
    return f"fused k={fusion.k} {fusion.dense_weight:g}:{fusion.lexical_weight:g}"


def mixing_name(mixing: Mixing) -> str:
    """What a table calls a mixing."""
    return f"k={mixing.k:g} {mixing.retrieval_weight:g}:{mixing.rerank_weight:g}"
