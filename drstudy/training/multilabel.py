"""Labels of whole photographs beside each other: targets, weights of the rare ones, cross-entropy and AUC over what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from drstudy.core.names import SPLITS
from drstudy.data import labels as lesion_labels
from drstudy.data.dataset import Dataset


def target(code: str) -> str:
    """Name of the target of a label."""
    return f"lesion_{code}"


def with_labels(data: Dataset, labels: pd.DataFrame, codes: Sequence[str]) -> Dataset:
    """The photographs with a target for each label; those of which no label is known are left out.

    Args:
        data: Photographs and split.
        labels: ``image_id`` and one column per code: 1, 0, or missing where not annotated.
        codes: Labels.

    Raises:
        drstudy.data.labels.LabelError: If that leaves no training or no validation photograph.
    """
    values = lesion_labels.as_array(labels, codes)
    targets = pd.DataFrame(values, columns=[target(code) for code in codes])
    targets.insert(0, "image_id", labels["image_id"].to_numpy())
    known = labels["image_id"][~np.isnan(values).all(axis=1)]
    table = data.table[data.table["image_id"].isin(known)]
    for split in SPLITS[:2]:
        if not (table["split"] == split).any():
            raise lesion_labels.LabelError(
                f"No {split} photograph has a known label of {', '.join(codes)}. Point AUDIT to graded photographs with lesion masks "
                "(notebook 01 puts those without a grade into test), set LABELS to a CSV of labels, or set TRAINED to the result of another "
                "profile to look at its networks here."
            )
    return replace(data, table=table).with_targets(targets)


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


def mean_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the labels of the area under the ROC curve, each over its known images.

    Args:
        labels: (N, C) 1, 0 or NaN.
        scores: (N, C).

    Returns:
        The mean over the labels that have both values; 0.5 if none has.
    """
    areas = []
    for truth, score in zip(labels.T, scores.T):
        known = ~np.isnan(truth)
        if len(set(truth[known])) == 2:
            areas.append(roc_auc_score(truth[known] == 1, score[known]))
    return float(np.mean(areas)) if areas else 0.5
