"""Losses of the SALL-style student (``docs/sources.md``, C3). All forms are choices of this study where the sources are silent."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def hard(logits: Tensor, labels: Tensor, temperature: float = 1.0, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the hard label, for each photograph; 0, with a gradient of 0, where the label is unknown.

    Args:
        logits: (B, K) float32.
        labels: (B,) float32, whole numbers 0 to K - 1, NaN where unknown.
        temperature: The logits are divided by it.
        smoothing: Share of the probability that is spread evenly over all K classes.

    Returns:
        (B,) nats.
    """
    known = ~labels.isnan()
    each = F.cross_entropy(
        logits / temperature, labels.nan_to_num().long(), reduction="none", label_smoothing=smoothing
    )
    return each * known


def soft(logits: Tensor, probabilities: Tensor, temperature: float, squared: bool = True) -> Tensor:
    """Cross-entropy with a teacher's probabilities, for each photograph.

    Args:
        logits: (B, K) float32 of the student, divided by the temperature here.
        probabilities: (B, K) of the teacher at the same temperature; NaN where there are none, which count 0.
        temperature: T.
        squared: Whether to multiply by T², which keeps the size of the gradient (Hinton et al. 2015).

    Returns:
        (B,) nats.
    """
    given = ~probabilities.isnan().any(1)
    each = -(probabilities.nan_to_num() * (logits / temperature).log_softmax(1)).sum(1)
    return each * given * (temperature**2 if squared else 1.0)


def confidence(probabilities: Tensor) -> Tensor:
    """Weight of a soft label: 1 less its entropy over that of equal probabilities, (B,) 0 to 1; 0 where there is none (**a choice**)."""
    p = probabilities.nan_to_num()
    entropy = -(p * p.clamp(min=1e-12).log()).sum(1)
    given = ~probabilities.isnan().any(1)
    return (1 - entropy / math.log(p.shape[1])).clamp(min=0) * given


def matching(projected: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of projected student features to the teacher's, relative to the teacher's mean square (**a choice**).

    Args:
        projected, teacher: (M, width) float32; M may be 0.

    Returns:
        A scalar; 1 is what a projection to 0 would have, and 0 if M is 0.
    """
    if not len(teacher):
        return projected.sum() * 0
    return ((projected - teacher) ** 2).mean() / (teacher**2).mean().clamp(min=1e-12)


def told_apart(logits: Tensor, kinds: Tensor) -> Tensor:
    """Mean binary cross-entropy of a discriminator over the photographs whose kind is known; 0 if there are none.

    Args:
        logits: (B,).
        kinds: (B,) 0, 1, or NaN.
    """
    known = ~kinds.isnan()
    each = F.binary_cross_entropy_with_logits(logits, kinds.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def ramp(progress: float) -> float:
    """Rise of an adversarial weight from 0 to 1 over a training: 2 / (1 + exp(-10 progress)) - 1 (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def entropy(probabilities: Tensor) -> float:
    """Mean entropy of the rows that have no NaN, as a share of that of equal probabilities, 0 to 1."""
    p = probabilities[~probabilities.isnan().any(1)]
    return float((-(p * p.clamp(min=1e-12).log()).sum(1) / math.log(p.shape[1])).mean())


def smoothing_of(target: float, classes: int) -> float:
    """Amount of label smoothing whose targets have a given entropy, found by bisection.

    Args:
        target: Entropy as a share of that of equal probabilities, 0 to 1.
        classes: Number K of classes.

    Returns:
        0 to 1, accurate to 1e-9; the amount for which a one-hot label, smoothed, has that entropy.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        p = torch.full((1, classes), middle / classes, dtype=torch.float64)
        p[0, 0] += 1 - middle
        low, high = (middle, high) if entropy(p) < target else (low, middle)
    return (low + high) / 2
