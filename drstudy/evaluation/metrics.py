"""Numbers from saved predictions: agreement, discrimination and error of five-grade classifiers.

**Decision.** The predicted grade is the one of greatest probability (the lower of two equal ones). For a cut
K the decision "grade >= K" is: predicted grade >= K. Its score, for ROC curves, is p_K + ... + p_4. Decision
and score may disagree (probabilities .4, .3, .3 decide for grade 0 but score .6 for >= 1); the paper states
neither (docs/sources.md, A5).

**Undefined values** are NaN, never 0 and never left out: the recall of a grade that no image has, the
precision of one that is never predicted, an AUC without positives or without negatives, the kappa of one
constant grade for truth and prediction. **Macro** means are taken over the grades that are present in the
truth, one-vs-rest; ``grades_present`` says how many that were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import GRADES, PROBABILITIES

CUTS = (1, 2, 3, 4)

SUM_TOLERANCE = 1e-5
"""How far probabilities may sum from 1. A float32 softmax of five stays within 1e-6; a bf16 one does not."""


class PredictionError(ValueError):
    """Predictions are incomplete or contradict themselves."""


def read_predictions(path: str | PathLike[str], split: str = "test") -> pd.DataFrame:
    """The rows of one split of a ``predictions.csv``, checked; identifiers are text.

    Raises:
        PredictionError: As in :func:`check_predictions`; also if the file has no such split, naming its own.
    """
    frame = paths.read_csv(path, text=("image_id", "patient_id", "split"))
    if "split" not in frame:
        raise PredictionError(
            f"{path}: there is no column split; a predictions.csv names the split of every row."
        )
    rows = frame[frame["split"] == split].reset_index(drop=True)
    if rows.empty:
        raise PredictionError(
            f"{path}: no row has split {split!r}; there are {sorted(frame['split'].unique())}."
        )
    try:
        return check_predictions(rows)
    except PredictionError as error:
        raise PredictionError(f"{path}: {error}") from None


def check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Refuse predictions that no metric should be computed from; return them unchanged.

    Args:
        predictions: one row per image: ``grade`` (whole numbers 0 to 4), ``p0`` to ``p4`` (probabilities).
            ``image_id``, ``patient_id`` and ``split`` are checked where they are there.

    Raises:
        PredictionError: If columns or rows are missing, a value is missing, not finite or out of range,
            probabilities do not sum to 1 (within 1e-5), an image stands twice, or more than one split is
            mixed. Names the first such row.
    """
    missing = [name for name in ("grade", *PROBABILITIES) if name not in predictions]
    if missing:
        raise PredictionError(
            f"Columns are missing: {', '.join(missing)}. There are: {', '.join(map(str, predictions))}."
        )
    if predictions.empty:
        raise PredictionError("There is no row. Check which split was asked for.")

    def refuse(bad: np.ndarray, problem: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            name = (
                f"image_id {predictions['image_id'].iloc[row]}" if "image_id" in predictions else f"row {row}"
            )
            raise PredictionError(f"{int(bad.sum())} of {len(bad)} rows {problem}; the first is {name}.")

    grade = pd.to_numeric(predictions["grade"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    refuse(~np.isin(grade, list(GRADES)), "have a grade that is not 0, 1, 2, 3 or 4")
    p = (
        predictions[PROBABILITIES]
        .apply(pd.to_numeric, errors="coerce")
        .to_numpy(dtype=float, na_value=np.nan)
    )
    refuse(~np.isfinite(p).all(1), "have a probability that is missing or not a finite number")
    refuse(((p < 0) | (p > 1)).any(1), "have a probability outside 0 to 1")
    refuse(
        np.abs(p.sum(1) - 1) > SUM_TOLERANCE,
        "have probabilities p0 to p4 that do not sum to 1 (are these logits?)",
    )
    for name in ("image_id", "patient_id"):
        if name in predictions:
            refuse(predictions[name].isna().to_numpy(), f"have no {name}")
    if "image_id" in predictions:
        refuse(predictions["image_id"].duplicated().to_numpy(), "repeat an image_id")
    if "split" in predictions and predictions["split"].nunique() > 1:
        found = ", ".join(sorted(predictions["split"].unique()))
        raise PredictionError(f"The splits {found} are mixed. Keep the rows of one of them.")
    return predictions


def arrays(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked predictions as arrays: grade (N,) int, p (N, 5) float64, predicted grade (N,) int."""
    check_predictions(predictions)
    p = predictions[PROBABILITIES].to_numpy(dtype=float)
    return predictions["grade"].to_numpy(dtype=int), p, p.argmax(axis=1)


def confusion(grade: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Images by true (row) and predicted (column) grade, (5, 5) int."""
    return np.bincount(5 * grade + predicted, minlength=25).reshape(5, 5)


def binary_problems(grade: np.ndarray, p: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The two-class problems that have a ROC curve: ``{name: (positive (N,) bool, score (N,) float)}``.

    ``geK`` for the four cuts (score p_K + ... + p_4) and ``gradeG`` for the five grades, one against the rest
    (score p_G).
    """
    upwards = p[:, ::-1].cumsum(axis=1)[:, ::-1]
    cuts = {f"ge{cut}": (grade >= cut, upwards[:, cut]) for cut in CUTS}
    return cuts | {f"grade{g}": (grade == g, p[:, g]) for g in GRADES}


def per_image(grade: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """What is averaged over images, (N,) each: ``nll`` (nats) and ``brier`` (squared error, 0 to 2).

    As in scikit-learn, NLL takes a probability of 0 for the true grade as 2.2e-16: it stays finite, 36.04
    nats at most. Brier is summed over the grades.
    """
    of_truth = np.take_along_axis(p, grade[:, None], axis=1)[:, 0]
    truth = grade[:, None] == np.arange(5)
    return {"nll": -log(of_truth), "brier": ((p - truth) ** 2).sum(axis=1)}


def log(p: np.ndarray) -> np.ndarray:
    """Natural logarithm of probabilities, 0 taken as 2.2e-16; shape kept.

    Each one is by the C library: NumPy's own logarithm differs in the last bit between processors with and without AVX-512.
    """
    at_least = np.asarray(p, dtype=float).clip(min=np.finfo(float).eps)
    return np.array([math.log(value) for value in at_least.ravel()]).reshape(at_least.shape)


def from_confusion(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric that needs no more than the confusion matrix, for any number of matrices at once.

    Args:
        counts: (..., 5, 5), true grades in rows; whole numbers or weights.

    Returns:
        Name to an array of shape (...), NaN where a metric is undefined. ``accuracy_macro`` is the mean
        one-vs-rest accuracy; ``sensitivity_macro`` equals ``balanced_accuracy`` by definition and is there
        beside its two companions. ``mae`` is in grades.
    """
    counts = np.asarray(counts, dtype=float)
    true, predicted, hit = counts.sum(-1), counts.sum(-2), np.diagonal(counts, axis1=-2, axis2=-1)
    total = true.sum(-1)
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    found: dict[str, np.ndarray] = {}

    chance = np.einsum("...i,...j,ij->...", true, predicted, distance**2)
    found["qwk"] = 1 - ratio(total * (counts * distance**2).sum((-2, -1)), chance)
    found["accuracy"] = ratio(hit.sum(-1), total)
    recall = ratio(hit, true)
    specificity = ratio(total[..., None] - true - predicted + hit, total[..., None] - true)
    correct = ratio(total[..., None] - true - predicted + 2 * hit, total[..., None])
    found["balanced_accuracy"] = macro(recall, true)
    found["mae"] = ratio((counts * distance).sum((-2, -1)), total)
    found["grades_present"] = (true > 0).sum(-1).astype(float)
    found["sensitivity_macro"] = found["balanced_accuracy"]
    found["specificity_macro"] = macro(specificity, true)
    found["accuracy_macro"] = macro(correct, true)
    precision = ratio(hit, predicted)
    for g in GRADES:
        found[f"recall_grade{g}"], found[f"precision_grade{g}"] = recall[..., g], precision[..., g]
    for cut in CUTS:
        tn, tp = counts[..., :cut, :cut].sum((-2, -1)), counts[..., cut:, cut:].sum((-2, -1))
        positive = true[..., cut:].sum(-1)
        found[f"sensitivity_ge{cut}"] = ratio(tp, positive)
        found[f"specificity_ge{cut}"] = ratio(tn, total - positive)
        found[f"accuracy_ge{cut}"] = ratio(tp + tn, total)
        found[f"prevalence_ge{cut}"] = ratio(positive, total)
    return found


def macro(values: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean of (..., 5) one-vs-rest values over the grades with ``true`` (..., 5) > 0.

    NaN if no grade is present, or the value of one that is present is undefined.
    """
    present = true > 0
    return ratio(np.where(present, values, 0).sum(-1), present.sum(-1))


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney); NaN without positives or negatives."""
    from scipy.stats import rankdata

    n = int(positive.sum())
    m = len(positive) - n
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def weighted_auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """:func:`auc` for many weights of the images at once.

    Args:
        positive: (N,) bool.
        score: (N,).
        weights: (R, N), how often each image counts.

    Returns:
        (R,), NaN for a row of weights without a positive or without a negative image.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    up = np.add.reduceat(np.where(positive, weights, 0)[:, order].astype(float), starts, axis=1)
    down = np.add.reduceat(np.where(positive, 0, weights)[:, order].astype(float), starts, axis=1)
    below = down.cumsum(axis=1) - down
    pairs = (up * (below + down / 2)).sum(axis=1)
    return ratio(pairs, up.sum(axis=1) * down.sum(axis=1))


def evaluate(predictions: pd.DataFrame) -> dict[str, float]:
    """Every metric of the study (docs/sources.md, F), under its flat name.

    Args:
        predictions: one row per image of one split, as :func:`check_predictions` wants it.

    Returns:
        ``qwk`` (quadratic weighted kappa, -1 to 1), ``accuracy``, ``balanced_accuracy``, ``mae`` (grades),
        ``macro_auc``, ``nll`` (nats), ``brier`` (0 to 2), ``grades_present`` (0 to 5), ``recall_gradeG`` and
        ``precision_gradeG``; ``sensitivity_geK``, ``specificity_geK``, ``accuracy_geK``, ``prevalence_geK``
        and ``auc_geK`` for K = 1 to 4; ``sensitivity_macro``, ``specificity_macro``, ``accuracy_macro``.
        Shares are 0 to 1. NaN is undefined (see above).

    Raises:
        PredictionError: As in :func:`check_predictions`.
    """
    grade, p, predicted = arrays(predictions)
    counts = confusion(grade, predicted)
    found = {name: float(value) for name, value in from_confusion(counts).items()}
    areas = {name: auc(*problem) for name, problem in binary_problems(grade, p).items()}
    found["macro_auc"] = float(macro(np.array([areas[f"grade{g}"] for g in GRADES]), counts.sum(1)))
    found.update({f"auc_ge{cut}": areas[f"ge{cut}"] for cut in CUTS})
    found.update({name: float(values.mean()) for name, values in per_image(grade, p).items()})
    return found


def identity_gaps(values: Mapping[str, float]) -> dict[str, float]:
    """For each cut, accuracy - (p sensitivity + (1 - p) specificity), p the prevalence.

    0, but for rounding, where all four describe one binary task on one test set. A cut where one of them is
    NaN is NaN here. The paper's three rows cannot pass this on one test set (docs/sources.md, A5).
    """
    gaps = {}
    for cut in CUTS:
        a, se, sp, p = (
            values[f"{name}_ge{cut}"] for name in ("accuracy", "sensitivity", "specificity", "prevalence")
        )
        gaps[f"ge{cut}"] = a - (p * se + (1 - p) * sp)
    return gaps


def implied_prevalence(sensitivity: float, specificity: float, accuracy: float) -> float:
    """The share of positives at which three printed numbers agree: (spec - acc) / (spec - sens).

    NaN where sensitivity equals specificity. Valid only if all three describe one binary task on one test set
    (docs/sources.md, A5).
    """
    return float(ratio(np.asarray(specificity - accuracy), np.asarray(specificity - sensitivity)))


def ratio(above: np.ndarray, below: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """``above / below`` element by element, and ``empty`` where ``below`` is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, dtype=float), np.asarray(below, dtype=float))
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)
