"""Makes the loss functions, by name."""

from __future__ import annotations

from typing import Any

from winnow_lab.training.settings import Loss, TrainingSettings

# Every pair of the batch in one forward pass, which `cropping` splits better than the loss would.
_WHOLE = -1


def make_loss(model: Any, settings: TrainingSettings, *, processes: int = 1) -> Any:
    """The torch module of sentence-transformers that computes a loss for a model of the fitting kind."""
    if settings.loss in (Loss.COSINE, Loss.MNR, Loss.CACHED_MNR):
        return _for_bi_encoder(model, settings, processes)
    return _for_cross_encoder(model, settings)


def _for_bi_encoder(model: Any, settings: TrainingSettings, processes: int) -> Any:
    from sentence_transformers.sentence_transformer import losses

    # Over several processes the passages of all of them are negatives, as they are in one process with the whole batch.
    gather = processes > 1
    match settings.loss:
        case Loss.COSINE:
            return losses.CosineSimilarityLoss(model)
        case Loss.MNR:
            return losses.MultipleNegativesRankingLoss(model, gather_across_devices=gather)
        case _:
            return losses.CachedMultipleNegativesRankingLoss(
                model, mini_batch_size=settings.mini_batch, gather_across_devices=gather
            )


def _for_cross_encoder(model: Any, settings: TrainingSettings) -> Any:
    from sentence_transformers.cross_encoder import losses

    match settings.loss:
        case Loss.BCE:
            return losses.BinaryCrossEntropyLoss(model)
        case Loss.LAMBDA:
            return losses.LambdaLoss(model, mini_batch_size=_WHOLE)
        case Loss.LISTNET:
            return losses.ListNetLoss(model, mini_batch_size=_WHOLE)
        case _:
            return losses.MarginMSELoss(model)
