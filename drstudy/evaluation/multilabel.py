"""Measures of several yes-or-no labels at once, thresholds from validation, and one decision from all labels.

A label of an image may be unknown (not annotated). It then counts in no measure. Every measure is computed for any weights
of the images, so one product gives all resamples of a bootstrap over patients (:func:`drstudy.evaluation.statistics.image_weights`).
With weights of one it agrees with scikit-learn. A measure that is undefined, such as the AUC of a label that no image has,
is NaN and not 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics, statistics

MEASURES = ("auc", "ap", "f1", "sensitivity", "specificity")

RULES = ("max", "noisy_or")


def combine(probabilities: np.ndarray, rule: str) -> np.ndarray:
    """One score from the probabilities of several lesions.

    ``max`` is the greatest. ``noisy_or`` is 1 - prod(1 - p), the probability of at least one lesion if lesions were
    independent, which they are not (:func:`co_occurrence`).

    Args:
        probabilities: (N, L), 0 to 1, L > 0.
        rule: One of :data:`RULES`.

    Returns:
        (N,).

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule == "max":
        return probabilities.max(axis=1)
    if rule == "noisy_or":
        return -np.expm1(np.log1p(-probabilities.clip(max=1 - np.finfo(float).eps)).sum(axis=1))
    raise ValueError(f"DECISION is {rule!r}; it must be one of {', '.join(RULES)}.")


SLACK = 0.01
"""Thresholds whose F1 is within this distance of the best are treated as equivalent."""


def best_threshold(positive: np.ndarray, score: np.ndarray) -> tuple[float, float, float]:
    """The threshold with the greatest F1. It lies half way between two scores; of equal ones the highest is taken.

    An image is predicted positive if its score is at least the threshold.

    Args:
        positive: (N,) bool, observed.
        score: (N,).

    Returns:
        The threshold, and the lowest and highest threshold whose F1 is within :data:`SLACK` of the best. All three are NaN
        without a positive image, because nothing can be fitted.
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
        positive: (N,) bool, observed.
        score: (N,); equal scores enter together.
        called: (N,) bool, predicted.
        weights: (B, N), at least 0.

    Returns:
        (B,) each: ``auc``; ``ap``, the average precision with the steps of scikit-learn, but NaN and not 1 where all images
        have the label; ``f1``, ``sensitivity`` and ``specificity`` of ``called``. NaN where undefined, such as F1 without
        an observed or predicted positive.
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
    precision = metrics.ratio(hits, hits + misses, empty=0.0)
    true, all_called = weights @ (positive & called).astype(float), weights @ called.astype(float)
    false = all_called - true
    return {
        "auc": metrics.ratio((down * (hits - up / 2)).sum(axis=1), positives * negatives),
        "ap": np.where(negatives > 0, metrics.ratio((up * precision).sum(axis=1), positives), np.nan),
        "f1": metrics.ratio(2 * true, all_called + positives),
        "sensitivity": metrics.ratio(true, positives),
        "specificity": metrics.ratio(negatives - false, negatives),
    }


def enough(metric: str, patients_present: int, patients_absent: int) -> bool:
    """Whether there are enough patients for an interval of a measure.

    Sensitivity, F1 and average precision need patients with the label, specificity needs patients without it, and the AUC
    needs both.
    """
    needed = {"auc": min(patients_present, patients_absent), "specificity": patients_absent}
    return needed.get(metric, patients_present) >= statistics.FEWEST_PATIENTS


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
        thresholds: (L,); a label is predicted where its probability is at least its threshold.
        patients: (N,) patient of each image.
        names: L names of the labels.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of its draws.

    Returns:
        Long: ``label``, ``metric``, ``value``, ``lo``, ``hi``, ``n_valid``, ``present``, ``absent``, ``patients_present``.
        ``label`` is a name; ``macro``, the mean over the labels that have a value; ``micro``, all pairs of image and label
        as one problem; or ``all labels``, with the metrics ``hamming_loss`` (share of wrong pairs) and ``subset_accuracy``
        (share of images with every label right). No interval without :func:`enough` patients; none for ``macro`` unless
        each label with a value has one.
    """
    called, weights = probabilities >= thresholds, statistics.image_weights(patients, resamples, seed)
    known, positive = ~np.isnan(truth), truth == 1
    rows, of_labels = [], {name: [] for name in MEASURES}
    for j, name in enumerate(names):
        inside = known[:, j]
        found = measures(positive[inside, j], probabilities[inside, j], called[inside, j], weights[:, inside])
        about, lacking = _counts(inside, positive[:, j], patients)
        for metric, drawn in found.items():
            sure = enough(metric, about["patients_present"], lacking)
            rows.append(_row(name, metric, drawn, sure, about))
            if not np.isnan(drawn[0]):
                of_labels[metric].append((drawn, sure))
    pairs, owners = known.ravel(), np.repeat(patients, len(names))
    about, lacking = _counts(pairs, positive.ravel(), owners)
    for metric, several in of_labels.items():
        mean = np.mean([drawn for drawn, _ in several], axis=0) if several else np.full(len(weights), np.nan)
        rows.append(_row("macro", metric, mean, all(sure for _, sure in several), about))
    each = np.repeat(weights, len(names), axis=1)[:, pairs]
    micro = measures(positive.ravel()[pairs], probabilities.ravel()[pairs], called.ravel()[pairs], each)
    for metric, drawn in micro.items():
        rows.append(_row("micro", metric, drawn, enough(metric, about["patients_present"], lacking), about))
    for metric, drawn in _of_all_labels(known, called != positive, weights).items():
        rows.append(_row("all labels", metric, drawn, statistics.enough_patients(patients), about))
    return pd.DataFrame(rows)


def _row(
    label: str, metric: str, drawn: np.ndarray, sure: bool, about: Mapping[str, int]
) -> dict[str, object]:
    """A row of :func:`evaluate`, from the value and draws of one measure."""
    return {"label": label, "metric": metric, **statistics.from_weights(drawn, sure), **about}


def _counts(inside: np.ndarray, positive: np.ndarray, owners: np.ndarray) -> tuple[dict[str, int], int]:
    """Images with and without a label and patients with it, and the number of patients without it."""
    there, absent = inside & positive, inside & ~positive
    counted = {"present": int(there.sum()), "absent": int(absent.sum())}
    return counted | {"patients_present": len(np.unique(owners[there]))}, len(np.unique(owners[absent]))


def _of_all_labels(known: np.ndarray, differs: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Hamming loss and subset accuracy for many weights of the images, (1 + B,) each."""
    wrong, whole = known & differs, known.all(axis=1)
    right = (whole & ~wrong.any(1)).astype(float)
    return {
        "hamming_loss": metrics.ratio(
            weights @ wrong.sum(1).astype(float), weights @ known.sum(1).astype(float)
        ),
        "subset_accuracy": metrics.ratio(weights @ right, weights @ whole.astype(float)),
    }


def co_occurrence(labels: np.ndarray) -> np.ndarray:
    """Share of the images with the row's label that also have the column's, (L, L); NaN where no image has the row's.

    Args:
        labels: (N, L) 1, 0 or NaN; pairs with an unknown label are left out.
    """
    known, there = ~np.isnan(labels), labels == 1
    both = there.T.astype(float) @ there
    return metrics.ratio(both, there.T.astype(float) @ known)
