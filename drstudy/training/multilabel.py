"""Labels of whole photographs beside each other: weights of the rare ones, and cross-entropy over what is known."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F


def positive_weights(labels: np.ndarray, heaviest: float) -> np.ndarray:
    """Weight of a positive of each label: negatives over positives among the known, between 1 / ``heaviest`` and ``heaviest``.

    Args:
        labels: (N, L) of training.

    Returns:
        (L,) float64; 1 for a label without positives or without negatives, of which nothing can be learnt.
    """
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    ratio = np.where((positives > 0) & (negatives > 0), negatives / np.maximum(positives, 1), 1.0)
    return ratio.clip(1 / heaviest, heaviest)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels of a batch; 0, with a gradient of 0, where none is known.

    Args:
        logits: (B, L) float32.
        labels: (B, L) float32 in 0 to 1, NaN where unknown.
        weights: (L,) weight of a positive of each label; see :func:`positive_weights`.
    """
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), pos_weight=weights, reduction="none"
    )
    return (each * known).sum() / known.sum().clamp(min=1)
