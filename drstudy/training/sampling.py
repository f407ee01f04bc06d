"""Samplers: oversampling of rare grades, with replacement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from drstudy.core.names import N_GRADES

PAPER_WEIGHTS = (0.1, 1.0, 0.5, 3.0, 4.0)
"""Weight of an image of each grade, as the main paper prints them (its equation 2-1; ``docs/sources.md``, A2)."""
SAMPLERS = ("none", "sqrt", "inverse", "paper")


def grade_weights(sampler: str, counts: np.ndarray) -> np.ndarray:
    """Sampling weight of one image of each grade.

    Args:
        sampler: ``paper``; ``inverse`` (1 / count: balanced grades); ``sqrt`` (1 / sqrt(count), half way); ``none`` (all 1).
        counts: (5,) number of training images per grade.

    Returns:
        (5,) float64; 0 for a grade without images.

    Raises:
        ValueError: If the sampler is unknown, or the counts are not five non-negative numbers with at least one above 0.
    """
    counts = np.asarray(counts, dtype=float)
    if counts.shape != (N_GRADES,) or counts.sum() <= 0 or (counts < 0).any():
        raise ValueError(f"Counts of five grades are needed, at least one above 0; given: {counts.tolist()}.")
    present = counts > 0
    power = {"none": 0.0, "sqrt": -0.5, "inverse": -1.0}
    if sampler == "paper":
        return np.where(present, PAPER_WEIGHTS, 0.0)
    if sampler in power:
        return np.where(present, np.where(present, counts, 1.0) ** power[sampler], 0.0)
    raise ValueError(f"SAMPLER is {sampler!r}; it must be one of {', '.join(SAMPLERS)}.")


def expected_shares(sampler: str, counts: np.ndarray) -> np.ndarray:
    """Expected share of each grade among the draws, (5,), summing to 1."""
    mass = grade_weights(sampler, counts) * np.asarray(counts, dtype=float)
    return mass / mass.sum()


def expected_repeats(sampler: str, counts: np.ndarray) -> np.ndarray:
    """Expected draws of one image of each grade in an epoch of as many draws as images, (5,); 0 for an absent grade."""
    counts = np.asarray(counts, dtype=float)
    return np.divide(
        expected_shares(sampler, counts) * counts.sum(), counts, out=np.zeros(N_GRADES), where=counts > 0
    )


def draw(sampler: str, grades: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Draw one epoch: as many draws as there are images.

    Args:
        sampler: See :func:`grade_weights`; ``none`` is a permutation (each image once), the others draw with replacement.
        grades: (N,) grades 0..4 of the training images. PyTorch's sampler needs one weight per image; with one weight per grade, a
            well-known mistake, it would draw only the first five images.
        generator: Random generator, for a repeatable draw.

    Returns:
        (N,) int64 positions in ``grades``.
    """
    grades = np.asarray(grades, dtype=int)
    if sampler == "none":
        return torch.randperm(len(grades), generator=generator)
    return draw_by_weight(grade_weights(sampler, np.bincount(grades, minlength=N_GRADES)), grades, generator)


def repeated(draw: Callable[[], torch.Tensor], wanted: int) -> torch.Tensor:
    """So many positions, (wanted,) int64, from as many rounds of a drawing as that takes, the last one cut short.

    Raises:
        ValueError: If a round has no position.
    """
    drawn: list[torch.Tensor] = []
    while sum(map(len, drawn)) < wanted:
        drawn.append(draw())
        if not len(drawn[-1]):
            raise ValueError("There is nothing to draw from: no training image can be used.")
    return torch.cat(drawn)[:wanted]


def draw_by_weight(weights: np.ndarray, grades: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Draw one epoch with replacement: (N,) int64 positions in ``grades``, from (5,) weights of one image of each grade."""
    weights = np.asarray(weights)[np.asarray(grades, dtype=int)]
    return torch.tensor(
        list(
            WeightedRandomSampler(
                torch.from_numpy(weights), len(grades), replacement=True, generator=generator
            )
        )
    )
