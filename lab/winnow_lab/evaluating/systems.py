"""The systems that are compared, and the order that each would give for an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winnow_gateway.ordering import Fusion, Mixing, splice
from winnow_lab.evaluating.answers import BM25, DENSE, HYBRID, Answer, Order, fuse

EXHAUSTIVE = "exhaustive"
"""The cross-encoder over every document."""


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
    mixing: Mixing | None = None
    """How ranks of both stages are mixed; None: the reranker orders alone."""

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
        placed = splice(retrieved.scores, scores, mixing=self.mixing)
        return Order([retrieved.ids[each.position] for each in placed], [each.score for each in placed])


def systems(
    *,
    depths: Sequence[int],
    rerank_over: Sequence[str] = (DENSE, HYBRID),
    mixings: Mapping[str, Mixing] | None = None,
    fusions: Sequence[Fusion] = (),
    exhaustive: bool = False,
) -> list[System]:
    """First stages, then reranking of each at each depth: by the reranker alone, and by every mixing, named."""
    made = [System(name=stage, stage=stage) for stage in (DENSE, BM25, HYBRID)]
    made += [System(name=fusion_name(fusion), fusion=fusion) for fusion in fusions]
    for stage in rerank_over:
        for depth in depths:
            made.append(System(name=f"{stage}, rerank {depth}", stage=stage, depth=depth))
            made += [
                System(name=f"{stage}, rerank {depth}, {name}", stage=stage, depth=depth, mixing=mixing)
                for name, mixing in (mixings or {}).items()
            ]
    return [*made, System(name=EXHAUSTIVE)] if exhaustive else made


def fusion_name(fusion: Fusion) -> str:
    """What a table calls a fusion."""
    return f"fused k={fusion.k} {fusion.dense_weight:g}:{fusion.lexical_weight:g}"


def mixing_name(mixing: Mixing) -> str:
    """What a table calls a mixing."""
    return f"k={mixing.k:g} {mixing.retrieval_weight:g}:{mixing.rerank_weight:g}"
