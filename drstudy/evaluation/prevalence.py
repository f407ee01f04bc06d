"""Scores of predictions at any prevalence of the grades, with intervals over patients.

A network that is tested on another set of photographs meets two changes at once: another mix of grades, and everything else (camera,
clinic, graders, patients). Images are therefore weighted so that each grade has the same share in every set. What still differs between
two sets at this common prevalence is not due to the mix of grades.

The weight of an image of grade g is the wanted share of g over its share in the set. The weighted mix is exact in the data and in each
resample, since every resample is weighted by its own shares. This assumes that eyes of one grade look alike in both mixes
(label shift; docs/sources.md, H1); a set of severer eyes within a grade is not corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import N_GRADES
from drstudy.evaluation import calibration, metrics, statistics

MEASURES = ("qwk", "auc_ge1", "auc_ge2", "sensitivity_ge2", "specificity_ge2", "ece_ge2")
"""What :func:`measures` computes. Sensitivity and specificity are those of the decision ``called``."""

BINS = 10
"""Number of bins of equal width of the calibration error. Small sets leave wider bins emptier than 15."""


class PrevalenceError(ValueError):
    """A set of photographs cannot be weighted to the wanted mix of grades."""


def shares(grades: np.ndarray) -> np.ndarray:
    """Share of each grade, (5,), of grades (N,) int."""
    return np.bincount(np.asarray(grades, dtype=int), minlength=N_GRADES) / len(grades)


def common(sets: Sequence[np.ndarray]) -> np.ndarray:
    """The mean mix of several sets, each of which counts once, (5,).

    A grade that some set does not have is left out, since no weight can make up for it; the others are scaled to sum to 1.

    Args:
        sets: Grades (N,) int of each set.

    Raises:
        PrevalenceError: If no two grades are present in all sets.
    """
    each = np.stack([shares(grades) for grades in sets])
    mean = np.where((each > 0).all(axis=0), each.mean(axis=0), 0.0)
    if (mean > 0).sum() < 2:
        raise PrevalenceError(
            f"Fewer than two grades are present in all {len(sets)} sets, so they have no common prevalence. Compare larger sets."
        )
    return mean / mean.sum()


def reweighted(weights: np.ndarray, grade: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of images under which each grade has the wanted share.

    Args:
        weights: (R, N), each row the weights of the images in the data or in one resample.
        grade: (N,) int.
        wanted: (5,) shares that sum to 1; images of a grade of share 0 get the weight 0.

    Returns:
        (R, N). Each row keeps the sum of its weights. A row without any image of a wanted grade is NaN.

    Raises:
        PrevalenceError: If the images themselves lack a wanted grade.
    """
    present = np.bincount(grade, minlength=N_GRADES) > 0
    if absent := np.flatnonzero((np.asarray(wanted) > 0) & ~present).tolist():
        raise PrevalenceError(
            f"No image has grade {absent[0]}, which should have a share of {wanted[absent[0]]:.3f}. "
            "Use the shares of common(), which leave such a grade out."
        )
    weights = np.asarray(weights, dtype=float)
    counted = statistics.weighted_sums(weights, np.eye(N_GRADES)[grade])
    factor = metrics.ratio(np.asarray(wanted) * counted.sum(axis=1, keepdims=True), counted, np.nan)
    lacking = (np.isnan(factor) & (np.asarray(wanted) > 0)).any(axis=1)
    factor = np.where(lacking[:, None], np.nan, np.nan_to_num(factor))
    return weights * factor[:, grade]


def measures(predictions: pd.DataFrame, weights: np.ndarray) -> dict[str, np.ndarray]:
    """:data:`MEASURES` for any weights of the images.

    Args:
        predictions: One row per image: ``grade``, ``p0`` to ``p4``; ``predicted`` (grade 0 to 4) and ``called`` (bool, the decision
            "grade 2 or more" at a threshold that was fixed on validation).
        weights: (R, N), 0 or more; a row with NaN gives NaN.

    Returns:
        Name to (R,). ``ece_ge2`` is the expected calibration error of the probability of grade 2 or more, in :data:`BINS` bins of equal
        width. NaN is undefined.
    """
    grade, p, _ = metrics.arrays(predictions)
    weights = np.asarray(weights, dtype=float)
    predicted, called = predictions["predicted"].to_numpy(int), predictions["called"].to_numpy(bool)
    found = {"qwk": metrics.from_confusion(statistics.weighted_confusion(weights, grade, predicted))["qwk"]}
    problems = metrics.binary_problems(grade, p)
    for cut in (1, 2):
        found[f"auc_ge{cut}"] = metrics.weighted_auc(*problems[f"ge{cut}"], weights)
    positive, score = problems["ge2"]
    sums = statistics.weighted_sums(
        weights, np.column_stack([called & positive, ~called & ~positive, positive, ~positive])
    )
    found["sensitivity_ge2"] = metrics.ratio(sums[:, 0], sums[:, 2])
    found["specificity_ge2"] = metrics.ratio(sums[:, 1], sums[:, 3])
    place = np.clip((np.minimum(score, 1) * BINS).astype(int), 0, BINS - 1)
    found["ece_ge2"] = calibration.weighted_ece(score, positive, place, weights)
    return {name: np.where(np.isnan(weights).any(axis=1), np.nan, found[name]) for name in MEASURES}


def drawn(
    predictions: pd.DataFrame, resamples: int, seed: int, wanted: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """:func:`measures` of the data, then of each resample of the patients, (1 + B,) each.

    Args:
        predictions: As in :func:`measures`, with ``patient_id``.
        resamples, seed: Number B of resamples, and seed of the draws.
        wanted: Shares of the grades, (5,); None leaves the images as they are.
    """
    weights = statistics.image_weights(predictions["patient_id"], resamples, seed)
    if wanted is not None:
        weights = reweighted(weights, predictions["grade"].to_numpy(int), wanted)
    return measures(predictions, weights)


def summary(draws: Mapping[str, np.ndarray], enough: bool = True) -> pd.DataFrame:
    """One row per measure: ``metric, value, lo, hi, n_valid``, from the (1 + B,) values of :func:`drawn`."""
    return pd.DataFrame(
        [{"metric": name, **statistics.from_weights(values, enough)} for name, values in draws.items()]
    )


def separate(
    inside: Mapping[str, Mapping[str, np.ndarray]], outside: Mapping[str, Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """How far a score falls from one test set to another, and how much of that is due to the mix of grades.

    Args:
        inside: :func:`drawn` of the network's predictions on eyes of the set that it learnt from, under the keys ``own`` (the set's own
            mix of grades) and ``common`` (the common mix).
        outside: The same on the other set. Its patients are others, so its resamples are independent.

    Returns:
        One row per measure and part: ``metric, part, value, lo, hi, n_valid``. ``total`` is outside minus inside at each set's own mix,
        ``rest`` the same at the common mix, ``prevalence`` the total minus the rest.
    """
    rows = []
    for name in inside["own"]:
        total = outside["own"][name] - inside["own"][name]
        rest = outside["common"][name] - inside["common"][name]
        for part, values in (("total", total), ("prevalence", total - rest), ("rest", rest)):
            rows.append({"metric": name, "part": part, **statistics.from_weights(values)})
    return pd.DataFrame(rows)
