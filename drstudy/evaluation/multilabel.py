"""Measures of several yes-or-no labels at once, thresholds from validation, and one decision out of all labels.

A label of an image may be unknown (not annotated); it then counts nowhere. Everything is computed for any weights of the images, so
that one product gives all resamples of a bootstrap over patients (:mod:`drstudy.evaluation.statistics`); with weights of one it agrees with
scikit-learn. A measure that is undefined, such as the AUC of a label that no image has, is NaN and not 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.evaluation import statistics
from drstudy.explain.measures.localisation import FEWEST_PATIENTS

MEASURES = ("auc", "ap", "f1", "sensitivity", "specificity")

RULES = ("max", "noisy_or")


def combine(probabilities: np.ndarray, rule: str) -> np.ndarray:
    """One score out of the probabilities of several lesions.

    ``max`` is the greatest; ``noisy_or`` is 1 - prod(1 - p), the probability of at least one if lesions were independent, which they
    are not (:func:`co_occurrence`).

    Args:
        probabilities: (N, L), 0 to 1, L > 0.

    Returns:
        (N,).
    """
    if rule == "max":
        return probabilities.max(axis=1)
    if rule == "noisy_or":
        return -np.expm1(np.log1p(-probabilities.clip(max=1 - np.finfo(float).eps)).sum(axis=1))
    raise ValueError(f"DECISION is {rule!r}; it must be one of {', '.join(RULES)}.")


SLACK = 0.01
"""Of F1: thresholds that lose no more than this are as good, for all that some hundred validation images can tell."""


def best_threshold(positive: np.ndarray, score: np.ndarray) -> tuple[float, float, float]:
    """The threshold with the greatest F1, an image being called from it on; half way between two scores, the higher of equals.

    Args:
        positive: (N,) bool.
        score: (N,).

    Returns:
        The threshold, and the lowest and highest whose F1 is within :data:`SLACK` of it; NaN without a positive: nothing can be fitted.
    """
    if not positive.any():
        return float("nan"), float("nan"), float("nan")
    levels = np.unique(score)
    between = np.concatenate([levels[:1], (levels[:-1] + levels[1:]) / 2])
    called = score >= between[:, None]
    f1 = 2 * (called & positive).sum(1) / (called.sum(1) + positive.sum())
    as_good = between[f1 >= f1.max() - SLACK]
    return float(between[np.flatnonzero(f1 == f1.max())[-1]]), float(as_good[0]), float(as_good[-1])


def measures(
    positive: np.ndarray, score: np.ndarray, called: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """:data:`MEASURES` of one label for many weights of the images.

    Args:
        positive, called: (N,) bool.
        score: (N,); equal scores enter together.
        weights: (B, N), at least 0.

    Returns:
        (B,) each: ``auc``; ``ap``, the average precision as scikit-learn steps it, but NaN and not 1 where all have the label; ``f1``, ``sensitivity``, ``specificity`` of
        ``called``. NaN where undefined: F1 without a positive and without a call.
    """
    order = np.argsort(-score, kind="stable")
    first = np.flatnonzero(np.diff(-score[order], prepend=-np.inf))  # of each run of equal scores
    sorted_weights, sorted_positive = weights[:, order].astype(float), positive[order]
    up = (
        np.add.reduceat(sorted_weights * sorted_positive, first, axis=1)
        if len(score)
        else np.zeros((len(weights), 0))
    )
    down = np.add.reduceat(sorted_weights * ~sorted_positive, first, axis=1) if len(score) else up
    hits, misses = up.cumsum(axis=1), down.cumsum(axis=1)
    positives, negatives = up.sum(axis=1), down.sum(axis=1)
    precision = _ratio(hits, hits + misses, empty=0.0)
    true, all_called = weights @ (positive & called).astype(float), weights @ called.astype(float)
    false = all_called - true
    return {
        "auc": _ratio((down * (hits - up / 2)).sum(axis=1), positives * negatives),
        "ap": np.where(negatives > 0, _ratio((up * precision).sum(axis=1), positives), np.nan),
        "f1": _ratio(2 * true, all_called + positives),
        "sensitivity": _ratio(true, positives),
        "specificity": _ratio(negatives - false, negatives),
    }


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), empty), where=below > 0)


def draws(patients: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(1 + B, N) weights of the images: all once, then each resample of the patients; the same resamples as everywhere."""
    _, place = np.unique(patients.astype(str), return_inverse=True)
    counted = statistics.resample_counts(patients.astype(str), resamples, seed)[:, place]
    return np.concatenate([np.ones((1, len(patients)), counted.dtype), counted])


def enough(metric: str, patients_present: int, patients_absent: int) -> bool:
    """Whether there are patients enough for an interval, of those that a measure is about: sensitivity, F1 and average precision need
    patients with the label, specificity patients without it, the AUC both."""
    needed = {"auc": min(patients_present, patients_absent), "specificity": patients_absent}
    return needed.get(metric, patients_present) >= FEWEST_PATIENTS


def summary(drawn: np.ndarray, enough: bool = True) -> dict[str, float]:
    """``value, lo, hi, n_valid`` of one measure.

    Args:
        drawn: (1 + B,) for the weights of :func:`draws`.
        enough: Whether there are patients enough for an interval.
    """
    found = statistics.percentiles(drawn[0], drawn[1:])
    if not enough or np.isnan(drawn[0]):
        found |= {"lo": np.nan, "hi": np.nan}
    return found


def evaluate(
    truth: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    patients: np.ndarray,
    names: tuple[str, ...],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """All labels of one network on one set of images.

    Args:
        truth: (N, L) 1, 0 or NaN (not annotated).
        probabilities: (N, L).
        thresholds: (L,); a label is called from its threshold on.
        patients: (N,) names.
        names: Of the labels.
        resamples, seed: Of the patient bootstrap.

    Returns:
        Long: ``label`` (a name, ``macro``: mean over the labels with a value, ``micro``: all pairs of image and label as one
        problem, ``all labels``: ``hamming_loss``, the share of wrong pairs, and ``subset_accuracy``, of the images with every label
        right), ``metric``, ``value``, ``lo``, ``hi``, ``n_valid``, ``present``, ``absent``, ``patients_present``. No interval without
        :func:`enough` patients; none of ``macro`` unless each label with a value has one.
    """
    called, weights = probabilities >= thresholds, draws(patients, resamples, seed)
    known = ~np.isnan(truth)
    rows, of_labels = [], {name: [] for name in MEASURES}

    def add(label: str, metric: str, drawn: np.ndarray, sure: bool, about: Mapping[str, int]) -> None:
        rows.append({"label": label, "metric": metric, **summary(drawn, sure), **about})

    def about(inside: np.ndarray, positive: np.ndarray, owners: np.ndarray) -> tuple[dict[str, int], int]:
        there, absent = inside & positive, inside & ~positive
        counted = {"present": int(there.sum()), "absent": int(absent.sum())}
        return counted | {"patients_present": len(np.unique(owners[there]))}, len(np.unique(owners[absent]))

    for j, name in enumerate(names):
        inside = known[:, j]
        positive = truth[:, j] == 1
        found = measures(positive[inside], probabilities[inside, j], called[inside, j], weights[:, inside])
        counted, lacking = about(inside, positive, patients)
        for metric, drawn in found.items():
            sure = enough(metric, counted["patients_present"], lacking)
            add(name, metric, drawn, sure, counted)
            if not np.isnan(drawn[0]):
                of_labels[metric].append((drawn, sure))
    pairs, owners = known.ravel(), np.repeat(patients, len(names))
    counted, lacking = about(pairs, truth.ravel() == 1, owners)
    for metric, several in of_labels.items():
        mean = np.mean([drawn for drawn, _ in several], axis=0) if several else np.full(len(weights), np.nan)
        add("macro", metric, mean, all(sure for _, sure in several), counted)
    each = np.repeat(weights, len(names), axis=1)[:, pairs]
    micro = measures((truth.ravel() == 1)[pairs], probabilities.ravel()[pairs], called.ravel()[pairs], each)
    for metric, drawn in micro.items():
        add("micro", metric, drawn, enough(metric, counted["patients_present"], lacking), counted)
    wrong = known & (called != (truth == 1))
    whole = known.all(axis=1)
    shares = {
        "hamming_loss": _ratio(weights @ wrong.sum(1).astype(float), weights @ known.sum(1).astype(float)),
        "subset_accuracy": _ratio(
            weights @ (whole & ~wrong.any(1)).astype(float), weights @ whole.astype(float)
        ),
    }
    for metric, drawn in shares.items():
        add("all labels", metric, drawn, len(np.unique(patients)) >= FEWEST_PATIENTS, counted)
    return pd.DataFrame(rows)


def co_occurrence(labels: np.ndarray) -> np.ndarray:
    """Share of the images with the row's label that also have the column's, (L, L); NaN where no image has the row's.

    Args:
        labels: (N, L) 1, 0 or NaN; pairs with an unknown label are left out.
    """
    known, there = ~np.isnan(labels), labels == 1
    both = there.T.astype(float) @ there
    return _ratio(both, there.T.astype(float) @ known)
