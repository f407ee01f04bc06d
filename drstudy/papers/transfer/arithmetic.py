"""What the paper's printed numbers imply, computed from nothing but those numbers (docs/sources.md, A)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

TRAIN_SHARE, BATCH_SIZE = 0.8, 256
"""Of the main paper (docs/sources.md, A1, A4)."""


def most_accurate(mean_recall: float, shares: Sequence[float]) -> float:
    """The greatest accuracy that a classifier of that mean recall can have: it is right where most images
    are.

    Args:
        mean_recall: Mean over the grades, 0 to 1.
        shares: Shares of the images by grade, summing to 1.
    """
    left, found = mean_recall * len(shares), 0.0
    for share in sorted(shares, reverse=True):
        recall = min(1.0, left)
        found, left = found + share * recall, left - recall
    return found


def macro_reading(table2: pd.DataFrame, counts: Sequence[int], half_unit: float = 0.005) -> pd.DataFrame:
    """Can the printed sensitivity be a mean over the five grades, each against the rest (docs/sources.md, A5)?

    Args:
        table2: ``backbone, sensitivity, accuracy`` as printed, shares.
        counts: Images by grade.
        half_unit: Rounding of print, taken in favour of the reading.

    Returns:
        One row per network: ``most_accurate``, the greatest accuracy over five grades at that mean recall;
        ``if_plain``, what it must be if the printed accuracy is it; ``if_one_vs_rest``, what it must be if
        the printed one is the mean of five one-against-rest accuracies A, which is (5 A - 3) / 2;
        ``possible``.
    """
    shares = np.asarray(counts) / sum(counts)
    most = [most_accurate(value + half_unit, shares) for value in table2["sensitivity"]]
    plain = (table2["accuracy"] - half_unit).to_numpy()
    rest = (5 * plain - 3) / 2
    found = {"backbone": table2["backbone"], "most_accurate": most, "if_plain": plain, "if_one_vs_rest": rest}
    return pd.DataFrame(found).assign(possible=np.minimum(plain, rest) <= most)


def batches_an_epoch(images: int) -> int:
    """Batches of an epoch over the paper's training share, the last one perhaps not full."""
    return math.ceil(round(TRAIN_SHARE * images) / BATCH_SIZE)
