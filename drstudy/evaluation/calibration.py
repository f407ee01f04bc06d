"""Calibration of probabilities, and the consequences of acting on them.

Everything that is fitted or chosen (temperature, threshold) is fitted on **validation** and reported on
**test**. Intervals are those of :mod:`drstudy.evaluation.statistics`: patients are resampled, what was fitted stays as
it is, and the bins of the calibration error stay those of the test images themselves.

Expected calibration error (ECE) is 0 only for infinitely many images: even perfect probabilities differ
by chance from the observed share in a bin. :func:`summary` gives the ECE that they would show on as many images
(``if_calibrated``). Resampling adds chance once more, so intervals of the ECE lie too high; that of the Brier
score and the NLL, which need no bins, do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import N_GRADES
from drstudy.evaluation import metrics, statistics

BINS = 15
LARGEST_TEMPERATURE = 100.0
"""Where the search ends; 1 / 100 is its other end."""
REPEATS = 200
"""Simulated test sets behind ``if_calibrated``."""


class CalibrationError(ValueError):
    """Something cannot be fitted on the validation images there are."""


def confidence(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The greatest probability of each image (N,), 0.2 to 1, and whether it is that of the true grade (N,)
    bool."""
    grade, p, predicted = metrics.arrays(predictions)
    return p.max(axis=1), predicted == grade


def referable(predictions: pd.DataFrame, cut: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The probability of grade >= cut (N,), 0 to 1, and whether it is so (N,) bool."""
    grade, p, _ = metrics.arrays(predictions)
    positive, score = metrics.binary_problems(grade, p)[f"ge{cut}"]
    return score.clip(0, 1), positive  # sums of rounded probabilities may exceed 1 by 1e-16


def edges(probability: np.ndarray, bins: int = BINS, adaptive: bool = False) -> np.ndarray:
    """Bounds of the bins, (bins + 1,): of equal width on 0 to 1, or with equally many images (fewer bins
    where many tie).

    A bin holds the values above its lower bound up to and including its upper one; the first also its lower
    one.
    """
    if not adaptive:
        return np.linspace(0, 1, bins + 1)
    return np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)))


def bin_of(probability: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Number of the bin of each probability, (N,) int64 from 0, for the result of :func:`edges`."""
    return np.searchsorted(bounds[1:-1], probability, side="left")


def reliability(
    probability: np.ndarray, outcome: np.ndarray, bins: int = BINS, adaptive: bool = False
) -> pd.DataFrame:
    """The reliability curve: predicted probability and observed share in each bin.

    Args:
        probability: (N,), 0 to 1.
        outcome: (N,) bool.
        bins, adaptive: See :func:`edges`.

    Returns:
        One row per bin that holds images: ``lower``, ``upper``, ``images``, ``said`` (mean probability),
        ``seen`` (share of outcomes).
    """
    bounds = edges(probability, bins, adaptive)
    frame = pd.DataFrame({"bin": bin_of(probability, bounds), "said": probability, "seen": outcome})
    found = frame.groupby("bin").agg(images=("said", "size"), said=("said", "mean"), seen=("seen", "mean"))
    at = found.index.to_numpy()
    upper = bounds[np.minimum(at + 1, len(bounds) - 1)]  # all values equal: one bin, one bound
    return found.assign(lower=bounds[at], upper=upper)[
        ["lower", "upper", "images", "said", "seen"]
    ].reset_index(drop=True)


def ece(probability: np.ndarray, outcome: np.ndarray, bins: int = BINS, adaptive: bool = False) -> float:
    """Expected calibration error: mean distance of predicted probability and observed share over the bins, weighted by their images
    (Naeini 2015), 0 to 1.

    With :func:`confidence` it is the usual one of a classifier (Guo 2017); NaN without images.
    """
    if not len(probability):
        return float("nan")
    place = bin_of(probability, edges(probability, bins, adaptive))
    return float(np.abs(np.bincount(place, outcome - probability)).sum() / len(probability))


def weighted_ece(
    probability: np.ndarray, outcome: np.ndarray, place: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """:func:`ece` for many weights of the images at once, in bins that stay those of the images themselves.

    Args:
        probability, outcome: As of :func:`ece`.
        place: (N,) int, bin of each image; see :func:`bin_of`.
        weights: (R, N), how often each image counts.

    Returns:
        (R,), NaN for a row of weights that sums to 0.
    """
    sums = statistics.weighted_sums(weights, _gaps(probability, outcome, place))
    return metrics.ratio(np.abs(sums).sum(axis=1), weights.sum(axis=1))


def _gaps(probability: np.ndarray, outcome: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Outcome less probability of each image in the column of its bin, (N, bins), 0 in all others."""
    return (outcome - probability)[:, None] * (place[:, None] == np.arange(place.max() + 1))


def summary(
    predictions: pd.DataFrame, resamples: int, seed: int, bins: int = BINS, cut: int = 2
) -> pd.DataFrame:
    """Calibration with intervals.

    Returns:
        A row each: ``metric``, ``value``, ``lo``, ``hi``, ``n_valid``, ``if_calibrated`` (its mean if the
        probabilities were right, by simulation of independent eyes; ECE only). Metrics: ``ece`` and
        ``ece_adaptive`` of the greatest probability, ``ece_geK`` and ``ece_adaptive_geK`` of the probability
        of grade >= K; ``brier_geK`` (0 to 1) and ``nll_geK`` (nats) of the same; ``brier`` (0 to 2) and
        ``nll`` of all five grades.

    Raises:
        drstudy.evaluation.metrics.PredictionError: As :func:`drstudy.evaluation.statistics.bootstrap`.
    """
    patients, images = predictions["patient_id"], np.ones((len(predictions), 1))
    random = np.random.default_rng(seed)
    rows = []

    def add(metric: str, value: float, sums: np.ndarray, chance: float = np.nan) -> None:
        """One row from (N, k) sums, the metric being the mean over images of the sizes of their totals."""
        drawn = statistics.resampled_sums(np.hstack([sums, images]), patients, resamples, seed)
        draws = np.abs(drawn[:, :-1]).sum(axis=1) / drawn[:, -1]
        rows.append(
            {"metric": metric, **statistics.percentiles(value, draws), "if_calibrated": chance},
        )

    for suffix, (probability, outcome) in {
        "": confidence(predictions),
        f"_ge{cut}": referable(predictions, cut),
    }.items():
        for name, adaptive in (("ece", False), ("ece_adaptive", True)):
            place = bin_of(probability, edges(probability, bins, adaptive))
            gaps = _gaps(probability, outcome, place)
            simulated = (random.random(len(probability)) < probability for _ in range(REPEATS))
            chance = np.mean([ece(probability, found, bins, adaptive) for found in simulated])
            add(name + suffix, ece(probability, outcome, bins, adaptive), gaps, chance)
    of_truth = np.where(outcome, probability, 1 - probability)
    errors = metrics.per_image(*metrics.arrays(predictions)[:2])
    errors |= {f"brier_ge{cut}": (outcome - probability) ** 2, f"nll_ge{cut}": -metrics.log(of_truth)}
    for name, error in errors.items():
        add(name, error.mean(), error[:, None])
    return pd.DataFrame(rows)


def fit_temperature(validation: pd.DataFrame, classes: int = N_GRADES) -> float:
    """The temperature T with the lowest NLL on validation images (Guo 2017): probabilities become p^(1/T), normed
    again.

    Above 1 the network was too sure of itself, below 1 not sure enough. The order of the grades never
    changes. A probability of 0 is taken as 2.2e-16, as in the NLL of the study.

    Args:
        validation: ``grade`` and ``p0`` to ``p4``.
        classes: Number of classes there are; later probabilities take no part.

    Returns:
        T, at least 1/100 and at most :data:`LARGEST_TEMPERATURE`. Exactly one of these says that none in
        between is
        best: the largest where validation is better served by equal probabilities (the network knows
        nothing), the least where every validation image is right.
    """
    from scipy.optimize import minimize_scalar

    grade, p, _ = metrics.arrays(validation)
    logs = metrics.log(p[:, :classes])
    rows = np.arange(len(grade))

    def nll(log_t: float) -> float:
        scaled = logs / np.exp(log_t)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[rows, grade]).mean())

    bound = np.log(LARGEST_TEMPERATURE)
    found = minimize_scalar(nll, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-9})
    ends = {nll(-bound): 1 / LARGEST_TEMPERATURE, nll(bound): LARGEST_TEMPERATURE}
    if min(ends) <= found.fun:
        return ends[min(ends)]
    return float(np.exp(found.x))


def scaled(predictions: pd.DataFrame, temperature: float, classes: int = N_GRADES) -> pd.DataFrame:
    """Predictions with their probabilities at another temperature; all else as it was, later probabilities than those of the classes too."""
    names = metrics.PROBABILITIES[:classes]
    logs = metrics.log(predictions[names].to_numpy(dtype=float)) / temperature
    logs -= np.logaddexp.reduce(logs, axis=1)[:, None]
    return predictions.assign(**dict(zip(names, np.exp(logs).T)))


def threshold(validation: pd.DataFrame, specificity: float, cut: int = 2) -> float:
    """The lowest threshold of the score for grade >= cut with at least this specificity on validation.

    An image is predicted positive if its score is **at least** the threshold, so it lies just above a score of a
    negative: half way to the next greater score of any image, where there is one.

    Raises:
        CalibrationError: If validation has no image below the cut.
    """
    score, positive = referable(validation, cut)
    try:
        return least_threshold(score, positive, specificity)
    except CalibrationError:
        raise CalibrationError(
            f"No validation image is below grade {cut}, so specificity cannot be measured there."
        ) from None


def least_threshold(score: np.ndarray, positive: np.ndarray, specificity: float) -> float:
    """:func:`threshold` of any score that is greater for positive images.

    Args:
        score: (N,) float, of validation images.
        positive: (N,) bool.
        specificity: Wanted, 0 to 1.

    Raises:
        CalibrationError: If no image is negative.
    """
    negative = np.sort(score[~positive])
    if not len(negative):
        raise CalibrationError("No validation image is negative, so specificity cannot be measured there.")
    kept = int(np.ceil(specificity * len(negative) - 1e-9))  # so many negatives must stay below
    if kept == 0:
        return min(0.0, float(negative[0]))
    below = negative[kept - 1]
    above = score[score > below]
    return float((below + above.min()) / 2) if len(above) else float(np.nextafter(below, np.inf))


def operating_points(
    validation: pd.DataFrame,
    test: pd.DataFrame,
    specificities: Sequence[float],
    resamples: int,
    seed: int,
    cut: int = 2,
) -> pd.DataFrame:
    """Thresholds chosen on validation for a wanted specificity, and what they give on test.

    Returns:
        Long: ``wanted`` (specificity asked for), ``threshold``, ``metric`` (sensitivity, specificity, ppv,
        npv), ``on_validation``, ``value`` (on test), ``lo``, ``hi``, ``n_valid``. NaN is undefined, such as
        a ppv where none is predicted positive.

    Raises:
        CalibrationError: As in :func:`threshold`.
    """
    rows = []
    for wanted in specificities:
        at = threshold(validation, wanted, cut)
        before, _ = _shares(validation, at, cut)
        values, sums = _shares(test, at, cut)
        drawn = statistics.resampled_sums(sums, test["patient_id"], resamples, seed)
        draws = metrics.ratio(drawn[:, :4], drawn[:, 4:])
        for column, (name, value) in enumerate(values.items()):
            about = {"wanted": wanted, "threshold": at, "metric": name, "on_validation": before[name]}
            rows.append(about | statistics.percentiles(value, draws[:, column]))
    return pd.DataFrame(rows)


def _shares(predictions: pd.DataFrame, at: float, cut: int) -> tuple[dict[str, float], np.ndarray]:
    """Four shares at a threshold, and the (N, 8) contributions to their numerators and denominators."""
    score, positive = referable(predictions, cut)
    called = score >= at
    above = [called & positive, ~called & ~positive, called & positive, ~called & ~positive]
    sums = np.column_stack([*above, positive, ~positive, called, ~called]).astype(float)
    total = sums.sum(axis=0)
    return dict(
        zip(("sensitivity", "specificity", "ppv", "npv"), metrics.ratio(total[:4], total[4:]).tolist())
    ), sums


def decision_curve(
    predictions: pd.DataFrame, thresholds: Sequence[float], resamples: int, seed: int, cut: int = 2
) -> pd.DataFrame:
    """Net benefit of referring the eyes whose probability reaches a threshold, beside referring all and none
    (Vickers 2006).

    Net benefit = (true positives - false positives x t / (1 - t)) / images: at t, a clinic would refer (1 -
    t) / t healthy eyes to find one that is not. Referring none gives 0. It takes the probabilities at their
    word, so they should be calibrated.

    Args:
        predictions: Predictions of the test images.
        thresholds: Probabilities, each above 0 and below 1.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        cut: What is to be referred.

    Returns:
        One row per threshold: ``threshold``, ``value``, ``lo``, ``hi`` (of the network), ``refer_all``,
        ``gain``, ``gain_lo``, ``gain_hi`` (network minus the better of all and none on the whole test set,
        paired).

    Raises:
        ValueError: If a threshold is not between 0 and 1.
    """
    score, positive = referable(predictions, cut)
    rows = []
    for t in thresholds:
        if not 0 < t < 1:
            raise ValueError(f"A threshold of a decision curve lies between 0 and 1, not at {t:g}.")
        everyone = positive - (~positive) * t / (1 - t)
        network = everyone * (score >= t)
        better = everyone if everyone.mean() > 0 else np.zeros(len(everyone))
        sums = np.column_stack([network, network - better, np.ones(len(score))])
        drawn = statistics.resampled_sums(sums, predictions["patient_id"], resamples, seed)
        draws = drawn[:, :2] / drawn[:, 2:]
        own = statistics.percentiles(network.mean(), draws[:, 0])
        gain = statistics.percentiles((network - better).mean(), draws[:, 1])
        rows.append(
            {
                "threshold": t,
                "value": own["value"],
                "lo": own["lo"],
                "hi": own["hi"],
                "refer_all": everyone.mean(),
            }
            | {"gain": gain["value"], "gain_lo": gain["lo"], "gain_hi": gain["hi"]}
        )
    return pd.DataFrame(rows)
