"""From the evidence of several heads to one map for each lesion: which scale counts, and which lesion a cell belongs to.

Both rules are choices of this study and use no mask. Lesions differ in size by a factor of thirty, so that no one scale suits all, and a
scale that cannot predict a label cannot show its lesion (:func:`scale_weights`). The label of one lesion can also imply that of another:
nearly every eye with haemorrhages has microaneurysms too, so a network that learns from labels of whole photographs may find
microaneurysms by the haemorrhages beside them (:func:`exclusive`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from drstudy.papers.glam import patches

SMALL = frozenset({"MA", "HE", "EX"})
"""Lesions of at most about a quarter of a disc diameter: dots, blots, hard exudates. Finer maps show them better."""

NEARLY = 0.05
"""A scale can be trusted with a lesion if its validation AUC for the label is at most this much below that of the best scale."""

IMPLIES = 0.9
"""Share of the photographs with one label that also have another, from which on the first implies the second."""

Implied = tuple[tuple[int, ...], ...]
"""For each label, the labels that imply it and are rarer."""


def implied_by(labels: np.ndarray) -> Implied:
    """Which labels imply which, from the labels of training photographs.

    Args:
        labels: (N, L) 1, 0, NaN where unknown.

    Returns:
        For each label, the numbers of the rarer labels of whose photographs at least :data:`IMPLIES` have it.
    """
    found = []
    for k in range(labels.shape[1]):
        frequency = np.nanmean(labels[:, k]) if (~np.isnan(labels[:, k])).any() else 0.0
        rarer = []
        for j in range(labels.shape[1]):
            both = labels[(labels[:, j] == 1) & ~np.isnan(labels[:, k]), k]
            known = labels[~np.isnan(labels[:, j]), j]
            if j != k and len(both) and both.mean() >= IMPLIES and known.mean() < frequency:
                rarer.append(j)
        found.append(tuple(rarer))
    return tuple(found)


def exclusive(logits: Tensor, implied: Implied) -> Tensor:
    """Evidence for each label less the evidence for labels that imply it, where that is above 0: a cell belongs to one lesion.

    Args:
        logits: (B, L, h, w).
        implied: Result of :func:`implied_by`.

    Returns:
        (B, L, h, w).
    """
    parts = []
    for k, others in enumerate(implied):
        own = logits[:, k]
        parts.append(own - logits[:, list(others)].amax(1).clamp(min=0) if others else own)
    return torch.stack(parts, 1)


@dataclass(frozen=True)
class Rules:
    """How the scales make one map for each label.

    Attributes:
        implied: Result of :func:`implied_by`.
        weights: For each scale, the weight of its evidence for each label; for each label they sum to 1.
    """

    implied: Implied
    weights: tuple[tuple[float, ...], ...]


def scale_weights(areas: np.ndarray, codes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Which scales count for which label, from labels of validation photographs alone.

    A scale whose AUC for a label is more than :data:`NEARLY` below the best has no say. Of the others a lesion of :data:`SMALL` takes
    the finest, any other label the mean.

    Args:
        areas: (H, L) validation AUC of each scale, from fine to coarse, for each label.
        codes: L labels.

    Returns:
        H times L weights.
    """
    trusted = areas >= areas.max(0) - NEARLY
    weights = np.zeros(areas.shape)
    for k, code in enumerate(codes):
        (which,) = trusted[:, k].nonzero()
        chosen = which[:1] if code in SMALL else which
        weights[chosen, k] = 1 / len(chosen)
    return tuple(tuple(row) for row in weights.tolist())


def combined(logits: Sequence[Tensor], weights: Sequence[Sequence[float]], side: int) -> Tensor:
    """One map for each label: the weighted mean of the scales.

    Args:
        logits: Of each scale (B, L, h, w), each on its own grid.
        weights: Result of :func:`scale_weights`.
        side: Side of the result; maps are enlarged bilinearly.

    Returns:
        (B, L, side, side).
    """
    parts = [
        to_side(z, side) * z.new_tensor(weight)[None, :, None, None] for z, weight in zip(logits, weights)
    ]
    return torch.stack(parts).sum(0)


def to_side(maps: Tensor, side: int) -> Tensor:
    """Maps (B, C, h, w) enlarged bilinearly to (B, C, side, side)."""
    return patches.enlarge(maps, (side, side), "bilinear")


def reduced(maps: Tensor, grid: int) -> Tensor:
    """Maps (B, L, h, w) with at most ``grid`` cells per side: finer ones are averaged."""
    if maps.shape[-1] <= grid:
        return maps
    return F.adaptive_avg_pool2d(maps, grid)


def inside(lit: Tensor, side: int) -> Tensor:
    """The field of view (B, 1, h, w) bool on a coarser grid: cells of which at least half is inside."""
    if lit.shape[-1] == side:
        return lit
    return F.adaptive_avg_pool2d(lit.float(), side) >= 0.5
