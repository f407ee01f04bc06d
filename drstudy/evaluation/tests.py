"""Paired tests of two models on the same images: DeLong, McNemar, and the p-value of the patient bootstrap.

DeLong's and McNemar's tests stand here because readers ask for them. **Both treat every image as independent.** The
two eyes of a patient are correlated, so their p-values are too small, or too large where one eye's error makes up for
the other's. Use the p-value of the paired bootstrap over patients (:func:`p_value`) for conclusions.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics
from drstudy.evaluation.statistics import paired_difference, resampled


def p_value(draws: np.ndarray | pd.Series) -> float:
    """Two-sided p-value of a difference, from its draws: twice the smaller share on either side of 0.

    A draw of exactly 0 counts on both sides, and one draw is added to each, so the least is 2 / (B + 1).
    Where it is below 0.05 the 95 % percentile interval excludes 0, but for that addition. NaN draws are left
    out; NaN if all are.
    """
    valid = np.asarray(draws, dtype=float)
    valid = valid[~np.isnan(valid)]
    if not len(valid):
        return float("nan")
    smaller = min((valid <= 0).sum(), (valid >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(valid) + 1)))


def delong(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the ROC curves of several scores on the same images, and their covariance (DeLong 1988).

    In O(n log n) by midranks: a positive's share of negatives below it is its midrank among all minus its
    midrank among the positives (Sun & Xu 2014, IEEE Signal Process Lett 21:1389). Images are taken as
    independent; see the top of this module.

    Args:
        positive: (N,) bool.
        scores: (k, N), greater for positives; ties count half.

    Returns:
        Areas (k,) and covariance (k, k). The covariance is NaN with fewer than two positives or negatives,
        the areas also without any.
    """
    of_positives, of_negatives = _placements(positive, scores)
    n, m = of_positives.shape[1], of_negatives.shape[1]
    nothing = np.full((len(of_positives), len(of_positives)), np.nan)
    if not n or not m:
        return nothing[:, 0], nothing
    areas = of_positives.mean(axis=1)
    if n < 2 or m < 2:
        return areas, nothing
    return areas, np.atleast_2d(np.cov(of_positives)) / n + np.atleast_2d(np.cov(of_negatives)) / m


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives below each positive (k, n), and of the positives above each negative (k, m)."""
    from scipy.stats import rankdata

    positive, scores = np.asarray(positive, dtype=bool), np.atleast_2d(scores)
    among_all = rankdata(scores, axis=1)
    up, down = scores[:, positive], scores[:, ~positive]
    below = among_all[:, positive] - (rankdata(up, axis=1) if up.size else up)
    above = up.shape[1] - (among_all[:, ~positive] - (rankdata(down, axis=1) if down.size else down))
    return below / max(1, down.shape[1]), above / max(1, up.shape[1])


def delong_test(positive: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Difference of two areas on the same images, and its two-sided p-value.

    The p-value is 1 for areas that are equal without any variance, such as two perfect ones, and NaN where
    :func:`delong` has no covariance, or the variance is 0 and the areas differ.
    """
    from scipy.stats import norm

    of_positives, of_negatives = _placements(positive, np.stack([first, second]))
    n, m = of_positives.shape[1], of_negatives.shape[1]
    if not n or not m:
        return float("nan"), float("nan")
    by_positive, by_negative = of_positives[0] - of_positives[1], of_negatives[0] - of_negatives[1]
    difference = float(by_positive.mean())
    if n < 2 or m < 2:
        return difference, float("nan")
    variance = by_positive.var(ddof=1) / n + by_negative.var(ddof=1) / m
    if not variance:
        return difference, float("nan") if difference else 1.0
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test of two decisions on the same images: which of them is right more often.

    Args:
        first, second: (N,) bool, whether each is right. Of the positives only, it tests sensitivity; of the
            negatives only, specificity.

    Returns:
        Images that only the first has right, those that only the second has right, and the two-sided binomial
        p-value; 1 where there are none of either, NaN without images. Images are taken as independent.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact

    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if not len(first):
        return 0, 0, float("nan")
    p = exact([[0, only_first], [only_second, 0]], exact=True).pvalue if only_first + only_second else 1.0
    return only_first, only_second, float(p)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for their number (Holm 1979): the chance of any false finding among them stays at
    the level.

    NaN stays NaN and does not count: a test that could not be made finds nothing.
    """
    from statsmodels.stats.multitest import multipletests

    adjusted = np.asarray(p_values, dtype=float).copy()
    made = ~np.isnan(adjusted)
    if made.any():
        gc.freeze()  # multipletests collects garbage each time; without this it searches all objects of all libraries, for 0.2 s
        try:
            adjusted[made] = multipletests(adjusted[made], method="holm")[1]
        finally:
            gc.unfreeze()
    return adjusted


def paired_tests(a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int, cut: int = 2) -> pd.DataFrame:
    """Is model ``a`` better than ``b`` at one cut: AUC, sensitivity and specificity, each tested two ways.

    Returns:
        A row each: ``metric``, ``value`` (a minus b), ``lo``, ``hi`` and ``n_valid`` of
        :func:`paired_difference`; ``p_images`` of DeLong's test for the AUC and McNemar's for the others,
        which take eyes as independent; ``p_patients`` of the same bootstrap over patients as the interval.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`paired_difference`.
    """
    names = [f"auc_ge{cut}", f"sensitivity_ge{cut}", f"specificity_ge{cut}"]
    found = paired_difference(a, b, resamples, seed).set_index("metric").loc[names]
    draws = resampled(a, resamples, seed) - resampled(b, resamples, seed)
    rows = [frame.sort_values("image_id") for frame in (a, b)]
    positive = rows[0]["grade"].to_numpy(dtype=int) >= cut
    scores = [metrics.binary_problems(*metrics.arrays(frame)[:2])[f"ge{cut}"][1] for frame in rows]
    right = [(metrics.arrays(frame)[2] >= cut) == positive for frame in rows]
    found["p_images"] = [
        delong_test(positive, *scores)[1],
        mcnemar(right[0][positive], right[1][positive])[2],
        mcnemar(right[0][~positive], right[1][~positive])[2],
    ]
    found["p_patients"] = [p_value(draws[name]) for name in names]
    return found.reset_index()
