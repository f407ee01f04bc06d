"""Heads on frozen descriptors: ridge regression through a kernel, with everything that is chosen chosen on validation.

Every image is a row of a kernel matrix, which is computed once for a recipe. Each training is then a ridge regression on some of its
rows, exact and without randomness. The strength of the ridge, the calibration of the probabilities, the cuts between the grades and the
threshold of the operating point come from an inner cross-validation over the training patients. Test images are read once, at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.core.names import N_GRADES, PROBABILITIES
from drstudy.evaluation import calibration, metrics, ordinal

RIDGES = np.geomspace(0.1, 100.0, 7)
"""Strengths of the ridge that are tried, times the mean eigenvalue of the centred kernel."""

REGRESSION, ORDINAL = "regression", "ordinal"
"""One output, the grade; or four outputs, one per cut "grade k or more"."""

CUTS = np.arange(1, N_GRADES)

FINENESS = 2
"""Decimals of the expected grade among which cuts are placed. Finer cuts would follow single eyes, and take longer to find."""


class FoldError(ValueError):
    """Photographs cannot be divided into folds, or a fold cannot be learnt from."""


def kernel(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Mean similarity of all pairs of images over several blocks of descriptors.

    Each block counts once, whatever its width and scale: an image's values have their mean taken away and are scaled to length 1, so its
    similarity is the correlation of two images over the values of the block. No other image enters, so the similarity of two
    images does not depend on which other images there are.

    Args:
        blocks: (N, D) each.

    Returns:
        (N, N) float64, -1 to 1.
    """
    total = np.zeros((len(blocks[0]), len(blocks[0])))
    for block in blocks:
        centred = block - block.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        unit = centred / np.where(length > 0, length, 1)
        total += unit @ unit.T
    return total / len(blocks)


def folds(sets: np.ndarray, groups: np.ndarray, grades: np.ndarray, number: int, seed: int) -> np.ndarray:
    """A fold for each image: groups of patients stay together, and each set and grade is spread evenly.

    Args:
        sets, groups, grades: Set, group of patients and grade of each image, (N,).
        number: Number of folds.
        seed: Seed of the shuffle.

    Returns:
        (N,) int, 0 to ``number - 1``.

    Raises:
        FoldError: If a set has fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    for name in np.unique(sets):
        if (have := len(np.unique(groups[sets == name]))) < number:
            raise FoldError(f"The set {name} has {have} patients, too few for {number} folds. Lower FOLDS.")
    strata = pd.factorize(pd.Series(sets).astype(str) + " " + pd.Series(grades).astype(str))[0]
    found = np.zeros(len(sets), dtype=int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        divided = StratifiedGroupKFold(number, shuffle=True, random_state=seed).split(strata, strata, groups)
        for fold, (_, held) in enumerate(divided):
            found[held] = fold
    return found


def ridge(
    gram: np.ndarray,
    grade: np.ndarray,
    across: np.ndarray,
    head: str,
    strengths: Sequence[float] = tuple(RIDGES),
) -> np.ndarray:
    """Scores of images by ridge regressions of several strengths.

    Args:
        gram: (n, n) similarities of the training images.
        grade: (n,) their grades.
        across: (m, n) similarities of the images to score with the training images.
        head: :data:`REGRESSION` or :data:`ORDINAL`.
        strengths: Strengths of the ridge, times the mean eigenvalue of the centred ``gram``.

    Returns:
        (strengths, m, outputs): grades, or for the ordinal head values near 0 or 1 for the four cuts.
    """
    from scipy.linalg import solve

    target = grade[:, None].astype(float) if head == REGRESSION else (grade[:, None] >= CUTS).astype(float)
    mean, rows = target.mean(axis=0), gram.mean(axis=0)
    centred = gram - rows[None] - rows[:, None] + rows.mean()
    cross = across - across.mean(axis=1, keepdims=True) - rows[None] + rows.mean()
    scale = max(np.trace(centred) / len(grade), np.finfo(float).tiny)
    found = []
    for strength in strengths:
        ridged = centred + strength * scale * np.eye(len(grade))
        found.append(cross @ solve(ridged, target - mean, assume_a="pos") + mean)
    return np.stack(found)


def criterion(scores: np.ndarray, grade: np.ndarray, sets: np.ndarray) -> float:
    """How good scores are, whatever the cuts: mean of the AUC at grade 1 or more, the AUC at grade 2 or more, and the correlation with the
    grade. Each set counts once, since one mixture would reward knowing the set.

    Args:
        scores: (n, outputs); one output is used for all cuts, four are those of the cuts and their sum is the grade.
        grade, sets: (n,).
    """
    found = []
    for name in np.unique(sets):
        of = sets == name
        score, truth = scores[of], grade[of]
        first, second = (score[:, 0], score[:, 0]) if score.shape[1] == 1 else (score[:, 0], score[:, 1])
        total = score.sum(axis=1)
        varied = truth.std() > 0 and total.std() > 0
        found += [
            metrics.auc(truth >= 1, first),
            metrics.auc(truth >= 2, second),
            float(np.corrcoef(total, truth)[0, 1]) if varied else np.nan,
        ]
    known = np.array(found)[~np.isnan(found)]
    return float(known.mean()) if len(known) else -np.inf


@dataclass(frozen=True)
class Chosen:
    """What validation chose for one training.

    Attributes:
        ridge: Index in :data:`RIDGES`.
        criterion: Of the validation scores; see :func:`criterion`.
        slopes, offsets: (4,) of the logistic calibration of each cut.
        cuts: (4,) cuts of the expected grade with the greatest quadratic weighted kappa on validation.
        threshold: Of the probability of grade 2 or more, for the wanted specificity on validation.
        validation: Predictions of the training images by heads that did not see their patients.
    """

    ridge: int
    criterion: float
    slopes: np.ndarray
    offsets: np.ndarray
    cuts: np.ndarray
    threshold: float
    validation: pd.DataFrame


def inner_scores(gram: np.ndarray, table: pd.DataFrame, head: str) -> np.ndarray:
    """Scores of the training images by heads that did not see their fold, (ridges, n, outputs).

    Args:
        gram: (n, n).
        table: One row per image, with ``grade`` and ``fold``.
        head: Of :func:`ridge`.

    Raises:
        FoldError: If all images are in one fold.
    """
    fold, grade = table["fold"].to_numpy(), table["grade"].to_numpy(int)
    if len(np.unique(fold)) < 2:
        raise FoldError(
            "All training images are in one fold, so nothing is left for validation. Raise FOLDS to at least 3."
        )
    found = None
    for one in np.unique(fold):
        held, rest = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        scores = ridge(gram[np.ix_(rest, rest)], grade[rest], gram[np.ix_(held, rest)], head)
        if found is None:
            found = np.zeros((len(scores), len(table), scores.shape[2]))
        found[:, held] = scores
    return found


def best_ridge(scores: np.ndarray, table: pd.DataFrame) -> tuple[int, float]:
    """Index of the best strength of the ridge by :func:`criterion`, and its criterion; arguments as of :func:`choose`."""
    grade, sets = table["grade"].to_numpy(int), table["set"].to_numpy()
    found = [criterion(one, grade, sets) for one in scores]
    return int(np.argmax(found)), max(found)


def choose(scores: np.ndarray, table: pd.DataFrame, specificity: float) -> Chosen:
    """Everything that validation decides, from scores of :func:`inner_scores`; no other image is read.

    Args:
        scores: (ridges, n, outputs).
        table: ``image_id, patient_id, grade, set`` of the training images.
        specificity: Wanted on validation, 0 to 1.
    """
    grade = table["grade"].to_numpy(int)
    best, reached = best_ridge(scores, table)
    slopes, offsets = calibrate(scores[best], grade)
    probabilities = probability(scores[best], slopes, offsets)
    expected = probabilities @ np.arange(N_GRADES)
    cuts = ordinal.fit_cuts(expected.round(FINENESS), grade)
    validation = _frame(table, probabilities)
    threshold = calibration.threshold(validation, specificity)
    return Chosen(best, reached, slopes, offsets, cuts, threshold, validation)


def calibrate(scores: np.ndarray, grade: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset, (4,) each, of the log odds of each cut as a straight line of its score (Platt 1999; docs/sources.md, H4).

    The fit is penalised as in scikit-learn's default, so that a cut with few eyes above it keeps a finite slope. A cut that no eye, or
    every eye, reaches has the slope 0 and the odds of half an eye.
    """
    from sklearn.linear_model import LogisticRegression

    slopes, offsets = np.zeros(len(CUTS)), np.zeros(len(CUTS))
    for place, cut in enumerate(CUTS):
        positive = grade >= cut
        score = scores[:, min(place, scores.shape[1] - 1)]
        if positive.all() or not positive.any():
            share = np.clip(positive.mean(), 0.5 / len(grade), 1 - 0.5 / len(grade))
            offsets[place] = np.log(share / (1 - share))
            continue
        spread = score.std() or 1.0
        fitted = LogisticRegression().fit(((score - score.mean()) / spread)[:, None], positive)
        slopes[place] = max(fitted.coef_[0, 0], 0) / spread
        offsets[place] = fitted.intercept_[0] - slopes[place] * score.mean()
    return slopes, offsets


def probability(scores: np.ndarray, slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Probabilities of the five grades, (n, 5), rows summing to 1, from scores (n, outputs). A cut never has a greater probability
    than the cut below it."""
    from scipy.special import expit

    each = scores if scores.shape[1] == len(CUTS) else np.repeat(scores, len(CUTS), axis=1)
    reached = np.minimum.accumulate(expit(slopes * each + offsets), axis=1)
    bounded = np.column_stack([np.ones(len(scores)), reached, np.zeros(len(scores))])
    return -np.diff(bounded, axis=1)


def decided(table: pd.DataFrame, scores: np.ndarray, chosen: Chosen) -> pd.DataFrame:
    """Predictions with the decisions that validation fixed.

    Args:
        table: ``image_id, patient_id, grade, set`` of n images.
        scores: (n, outputs) of the chosen ridge.
        chosen: Result of :func:`choose`.

    Returns:
        The columns of ``table`` named above, ``p0`` to ``p4``, ``predicted`` (grade) and ``called`` (grade 2 or more).
    """
    probabilities = probability(scores, chosen.slopes, chosen.offsets)
    found = _frame(table, probabilities)
    expected = probabilities @ np.arange(N_GRADES)
    called = calibration.referable(found)[0] >= chosen.threshold
    return found.assign(predicted=ordinal.grades(expected, chosen.cuts), called=called)


def _frame(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    about = table[["image_id", "patient_id", "grade", "set"]].reset_index(drop=True)
    return about.assign(**{name: probabilities[:, place] for place, name in enumerate(PROBABILITIES)})
