"""Makes the evaluators that look at a model while it is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from winnow_lab.data.converting import as_judged_set
from winnow_lab.data.examples import Data, Groups, JudgedSet, ScoredPairs
from winnow_lab.data.splitting import sample, sample_documents
from winnow_lab.training.mining import dense_neighbours
from winnow_lab.training.negatives import Embed
from winnow_rpc.faults import InvalidArgument

NAME = "dev"
"""Metrics begin with this, as in dev_ndcg@10."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much of the evaluation data is looked at each time. An evaluation should be short beside the training."""

    queries: int = 200
    """Queries, or scored pairs times ten."""
    documents: int = 5000
    """Documents that they are looked for among: those that were judged, and others by chance."""
    depth: int = 30
    """Candidates of a query that a cross-encoder reranks: what the bi-encoder finds, the answer in it or not."""
    seed: int = 0


def candidates(dev: JudgedSet, embed: Embed, *, depth: int) -> list[dict[str, Any]]:
    """The samples of a CrossEncoderRerankingEvaluator: what the bi-encoder finds, best first. No answer is put in."""
    texts = list(dev.documents.values())
    ranks, _ = dense_neighbours(embed([query.text for query in dev.queries], True), embed(texts, False), depth=depth)
    return [
        {
            "query": query.text,
            "positive": [dev.documents[id_] for id_, grade in query.judgements.items() if grade > 0],
            "documents": [texts[at] for at in row],
        }
        for query, row in zip(dev.queries, ranks, strict=True)
    ]


def group_samples(groups: Groups) -> list[dict[str, Any]]:
    """The same of groups: their own documents, in an order that says nothing of their labels.

    What has a label above 0 answers; where a teacher gave none such, what has the highest.
    """
    return [
        {
            "query": group.query,
            "positive": [
                text
                for text, label in zip(group.documents, group.labels, strict=True)
                if label > 0 or label == max(group.labels)
            ],
            "documents": sorted(group.documents, key=lambda text: hashlib.sha256(text.encode()).digest()),
        }
        for group in groups.groups
    ]


def sampled(dev: Data, sampling: Sampling) -> Data:
    """The part of evaluation data that is looked at. Raises InvalidArgument for pairs that correlate with nothing."""
    factor = 10 if isinstance(dev, ScoredPairs) else 1
    dev = sample(dev, sampling.queries * factor, seed=sampling.seed)
    if isinstance(dev, ScoredPairs) and len({pair.score for pair in dev.pairs}) < 2:
        raise InvalidArgument(
            f"{dev.source}: the {len(dev.pairs)} pairs to evaluate on have one score and correlate with nothing: name "
            f"others with --dev, hold more out with --hold-out, or --hold-out 0 to train without evaluation"
        )
    return sample_documents(dev, sampling.documents, seed=sampling.seed) if isinstance(dev, JudgedSet) else dev


def bi_encoder_evaluators(dev: Data, *, batch_size: int = 64) -> list[Any]:
    """EmbeddingSimilarityEvaluator for scored pairs, InformationRetrievalEvaluator for all else."""
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

    if isinstance(dev, ScoredPairs):
        return [
            EmbeddingSimilarityEvaluator(
                [pair.sentence1 for pair in dev.pairs],
                [pair.sentence2 for pair in dev.pairs],
                [pair.score for pair in dev.pairs],
                main_similarity="cosine",
                name=NAME,
                batch_size=batch_size,
                write_csv=False,
            )
        ]
    judged = as_judged_set(dev)
    corpus: dict[str, Any] = dict(judged.documents)
    asked: dict[str, Any] = {query.id: query.text for query in judged.queries}
    return [
        InformationRetrievalEvaluator(
            asked,
            corpus,
            {query.id: {id_ for id_, grade in query.judgements.items() if grade > 0} for query in judged.queries},
            name=NAME,
            batch_size=batch_size,
            write_csv=False,
        )
    ]


def cross_encoder_evaluators(
    dev: ScoredPairs | None, samples: Sequence[dict[str, Any]] = (), *, batch_size: int = 64
) -> list[Any]:
    """CrossEncoderCorrelationEvaluator for scored pairs, CrossEncoderRerankingEvaluator for samples."""
    from sentence_transformers.cross_encoder.evaluation import (
        CrossEncoderCorrelationEvaluator,
        CrossEncoderRerankingEvaluator,
    )

    if dev is not None:
        return [
            CrossEncoderCorrelationEvaluator(
                [[pair.sentence1, pair.sentence2] for pair in dev.pairs],
                [pair.score for pair in dev.pairs],
                name=NAME,
                batch_size=batch_size,
                write_csv=False,
            )
        ]
    return [
        CrossEncoderRerankingEvaluator(
            list(samples),
            # An answer that the first stage did not find counts as lost, as it is in a search.
            always_rerank_positives=False,
            name=NAME,
            batch_size=batch_size,
            write_csv=False,
        )
    ]
