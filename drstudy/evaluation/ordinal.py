"""From a score to a grade, and how sure its kappa is.

A regression gives one number per eye. It becomes a grade by rounding, or by four cuts that were fitted on validation (docs/sources.md, E4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics, statistics

ROUNDED = (0.5, 1.5, 2.5, 3.5)
"""Cuts between the grades that rounding makes (docs/sources.md, E4)."""

QUANTITIES = ("qwk", "accuracy", "mae")
"""Metrics that a grade without probabilities has."""


def grades(scores: np.ndarray, cuts: Sequence[float] = ROUNDED) -> np.ndarray:
    """Grades 0..4 of scores: how many of the four cuts each one reaches."""
    return np.searchsorted(np.asarray(cuts), np.asarray(scores), side="right")


def fit_cuts(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cuts between the grades that have the greatest quadratic weighted kappa on these eyes, usually validation.

    Coordinate ascent from :data:`ROUNDED` over all places between neighbouring scores, until nothing improves; a kappa that is only
    equal moves no cut.

    Args:
        scores: (N,).
        truth: (N,) grades 0..4.

    Returns:
        (4,) rising cuts.
    """
    ordered = np.unique(np.asarray(scores, dtype=float))
    places = (ordered[1:] + ordered[:-1]) / 2
    cuts = np.array(ROUNDED)

    def kappa(candidates: np.ndarray) -> np.ndarray:
        reached = (np.asarray(scores)[None, :, None] >= candidates[:, None, :]).sum(2)
        counts = np.stack([metrics.confusion(truth, row) for row in reached])
        return np.nan_to_num(metrics.from_confusion(counts)["qwk"], nan=-1.0)

    best = kappa(cuts[None])[0]
    improved = len(places) > 0
    while improved:
        improved = False
        for k in range(4):
            low, high = (cuts[k - 1] if k else -np.inf), (cuts[k + 1] if k < 3 else np.inf)
            free = places[(places > low) & (places < high)]
            if not len(free):
                continue
            tried = np.repeat(cuts[None], len(free), axis=0)
            tried[:, k] = free
            found = kappa(tried)
            if found.max() > best + 1e-12:
                best, cuts, improved = found.max(), tried[found.argmax()], True
    return cuts


def called(scores: pd.DataFrame, cuts: Sequence[float] = ROUNDED) -> pd.DataFrame:
    """Predictions as :mod:`drstudy.evaluation.statistics` takes them: probability 1 for the grade of the score.

    Args:
        scores: one row per image: ``image_id``, ``patient_id``, ``grade``, ``score``.
        cuts: Four.

    Returns:
        The first three, and ``p0`` to ``p4``. Of its metrics only :data:`QUANTITIES` mean anything.
    """
    certain = np.eye(5)[grades(scores["score"], cuts)]
    about = scores[["image_id", "patient_id", "grade"]].reset_index(drop=True)
    return about.assign(**{name: certain[:, k] for k, name in enumerate(metrics.PROBABILITIES)})


def bootstrap(scores: pd.DataFrame, cuts: Sequence[float], resamples: int, seed: int) -> pd.DataFrame:
    """:func:`drstudy.evaluation.statistics.bootstrap` of :data:`QUANTITIES`."""
    found = statistics.bootstrap(called(scores, cuts), resamples, seed)
    return found[found["metric"].isin(QUANTITIES)]


def difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    cuts_a: Sequence[float],
    cuts_b: Sequence[float],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """:func:`drstudy.evaluation.statistics.paired_difference` of :data:`QUANTITIES`, scores ``a`` minus scores ``b`` of the same eyes."""
    found = statistics.paired_difference(called(a, cuts_a), called(b, cuts_b), resamples, seed)
    return found[found["metric"].isin(QUANTITIES)]
