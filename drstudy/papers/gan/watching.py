"""Whether a GAN learns, diverges or collapses: measured at the end of each epoch, and named by rules that were fixed beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

COARSE = 16
"""Side of the pictures on which distances are taken: what can be seen from afar."""

EXPLODED = 1e4
"""A mean score of the critic beyond this (or one that is not finite) is a divergence. Sound runs of either loss stay below 100."""

LEAST_DIVERSITY = 0.25
"""Diversity, as a share of that of held-out photographs, below which a generator has collapsed."""

PATIENCE = 0.25
"""Share of the epochs at the start in which low diversity does not count: a generator begins with one picture."""

Status = Literal["sound", "collapsed", "diverged", "not measurable"]


class Diverged(FloatingPointError):
    """The critic's scores exploded, or the generator's pictures are no numbers any more."""


@dataclass(frozen=True)
class Health:
    """What became of a training.

    Attributes:
        status: ``sound``, ``collapsed``, ``diverged``, or ``not measurable`` where no two validation photographs can be compared.
        why: One sentence.
    """

    status: Status
    why: str


def coarse(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, S, S), between -1 and 1, to vectors (N, 768) of their means over cells; smaller ones are taken as they are."""
    side = min(COARSE, pictures.shape[-1])
    return F.adaptive_avg_pool2d(pictures.float(), side).flatten(1)


def diversity(vectors: Tensor, groups: Tensor | None = None) -> float:
    """Mean Euclidean distance between two different pictures of one group.

    Args:
        vectors: (N, D).
        groups: (N,) grade of each picture, so that a generator that makes one picture per grade is not diverse; ``None`` is one group.

    Returns:
        The mean over all pairs; NaN if no group has two pictures.
    """
    if groups is None:
        groups = torch.zeros(len(vectors))
    pair = torch.triu(groups[:, None] == groups, diagonal=1).cpu()
    distances = torch.cdist(vectors.float().cpu(), vectors.float().cpu())[pair]
    return distances.mean().item() if len(distances) else float("nan")


def energy(one: Tensor, other: Tensor) -> float:
    """Energy distance of two sets of vectors, (N, D) and (M, D): 2 E|x - y| - E|x - x'| - E|y - y'|, each over different pictures.

    0 or a little below it if both sets come from one distribution (Szekely & Rizzo 2013, with the unbiased means).
    """
    across = torch.cdist(one.float().cpu(), other.float().cpu()).mean().item()
    return 2 * across - diversity(one) - diversity(other)


def check(scores: dict[str, float]) -> None:
    """Stop a training whose critic explodes.

    Raises:
        Diverged: If a mean score is not finite or beyond :data:`EXPLODED`.
    """
    for name, value in scores.items():
        if not abs(value) <= EXPLODED:
            raise Diverged(
                f"the critic's mean score of {name} photographs is {value:.3g}, beyond {EXPLODED:.0e}. Lower LEARNING_RATE and CRITIC_RATE"
            )


def check_energy(energy: float) -> None:
    """Stop a training whose pictures are no numbers any more.

    Raises:
        Diverged: If the energy distance is not finite.
    """
    if not math.isfinite(energy):
        raise Diverged(
            f"the energy distance to the validation photographs is {energy}. Lower LEARNING_RATE and CRITIC_RATE"
        )


def judge(history: pd.DataFrame) -> Health:
    """Whether the generator collapsed, from the history of a training that ended.

    Args:
        history: As of :class:`drstudy.training.loop.Fit`, with ``val_energy`` in the last row of each epoch, and ``val_diversity`` there as well: NaN where no grade
            has two validation photographs.
    """
    measured = history.dropna(subset="val_energy")
    if not np.isfinite(measured["val_diversity"]).all():
        return Health(
            "not measurable",
            "there is no pair of different validation photographs of one grade, so the diversity cannot be compared. Give the validation split a "
            "larger share",
        )
    late = measured[measured["epoch"] > PATIENCE * measured["epoch"].max()]
    final = late["val_diversity"].iloc[-1]
    if final >= LEAST_DIVERSITY:
        return Health("sound", f"at the end the diversity is {final:.2f} of that of held-out photographs")
    enough = late.loc[late["val_diversity"] >= LEAST_DIVERSITY, "epoch"]
    since = late["epoch"].iloc[0] if enough.empty else enough.iloc[-1] + 1
    return Health(
        "collapsed",
        f"from epoch {since} of {measured['epoch'].max()} on, the diversity is below {LEAST_DIVERSITY} of that of held-out photographs, at the end "
        f"{final:.2f}",
    )
