"""Losses of GLAM as this study reads them (Liu et al. 2021; ``docs/sources.md``, D3): no training code was released.

Cross-entropy is taken of probabilities, not of logits, because a score is a mean of sigmoids. It is computed in float32 also under
autocast, on probabilities that are kept :data:`EPSILON` away from 0 and 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6
"""Least distance of a probability from 0 and 1. The greatest cross-entropy of one label is 13.8; beyond it there is no gradient."""


def bce(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over what is known.

    Args:
        scores: (B, C) or (B, S, C) probabilities; NaN where there is no score, as of an image without a patch.
        labels: (B, C) in 0 to 1, NaN where unknown.

    Returns:
        Scalar float32, the mean over all pairs of a score and a known label; 0, with a gradient of 0, if there is none.
    """
    if scores.ndim == 3:
        labels = labels[:, None].expand(scores.shape)
    known = ~labels.isnan() & ~scores.isnan()
    with torch.autocast(scores.device.type, enabled=False):
        likely = scores.float().nan_to_num(0.5).clamp(EPSILON, 1 - EPSILON)
        each = F.binary_cross_entropy(likely, labels.float().nan_to_num(0.0), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)


def sparsity(maps: Tensor, l1: Literal["mean", "sum"], valid: Tensor | None = None) -> Tensor:
    """L1 of saliency maps per image and class. Maps are at least 0, so L1 is their sum.

    ``sum`` is ``mean`` times the number of positions: 22,080 times as much on a map of 184 x 120. The sources disagree which is meant
    (``docs/sources.md``, D3), so that a weight of this term says nothing without it.

    Args:
        maps: (B, C, h, w), at least 0.
        l1: ``mean`` or ``sum`` over the positions.
        valid: (B, 1, h, w) or (B, C, h, w) bool; other positions do not count.

    Returns:
        (B, C) float32; 0 where no position is valid.

    Raises:
        ValueError: If ``l1`` is neither.
    """
    if l1 not in ("mean", "sum"):
        raise ValueError(f"L1 is {l1!r}; it must be 'mean' or 'sum'.")
    values = maps.float()
    if valid is None:
        return values.mean((2, 3)) if l1 == "mean" else values.sum((2, 3))
    inside = valid.bool().expand(values.shape)
    total = values.masked_fill(~inside, 0).sum((2, 3))
    return total if l1 == "sum" else total / inside.sum((2, 3)).clamp(min=1)


def of_global(
    scales: Tensor, averaged: Tensor, sparse: Tensor, labels: Tensor, beta: float
) -> dict[str, Tensor]:
    """Loss of the global network.

    Args:
        scales: (B, S, C) score of each scale.
        averaged: (B, C) score of the plain mean of the scales' maps.
        sparse: (B, C) of :func:`sparsity` of the global map.
        labels: (B, C), NaN where unknown.
        beta: Weight of ``sparse``.

    Returns:
        Scalars: ``loss_scales``, ``loss_averaged``, ``loss_l1`` (not weighted), and ``loss``, their weighted sum.
    """
    parts = {
        "loss_scales": bce(scales, labels),
        "loss_averaged": bce(averaged, labels),
        "loss_l1": sparse.mean(),
    }
    return {"loss": parts["loss_scales"] + parts["loss_averaged"] + beta * parts["loss_l1"], **parts}


def of_local(score: Tensor, sparse: Tensor, labels: Tensor, beta: float) -> dict[str, Tensor]:
    """Loss of the local network.

    Args:
        score: (B, C) score of all patches of an image together; NaN without a patch.
        sparse: (B, C) of :func:`sparsity` of the patches' maps.
        labels: (B, C), NaN where unknown.
        beta: Weight of ``sparse``.

    Returns:
        Scalars: ``loss_local``, ``loss_l1_local`` (not weighted), and ``loss``, their weighted sum.
    """
    parts = {"loss_local": bce(score, labels), "loss_l1_local": sparse.mean()}
    return {"loss": parts["loss_local"] + beta * parts["loss_l1_local"], **parts}
