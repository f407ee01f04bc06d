"""How well each system grades the same test eyes, and how it differs from the reference network.

All systems share one set of resamples of the patients, so that differences are paired. Cuts are fixed on validation eyes. What a system
cannot say has no number: a system without a predicted grade has no kappa, and one without a probability has no calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.evaluation import calibration, metrics, multilabel, statistics, tests
from drstudy.evaluation.common import CUT
from drstudy.papers.beside.gather import Compared

MEASURES = {
    "qwk": "QWK",
    "auc": "AUC, referable",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "calibration error",
    "brier": "Brier score",
}
"""Measures, and what readers see. All but QWK are of referable DR, grade 2 or more."""

LOWER_IS_BETTER = ("ece", "brier")

FEWEST = 2
"""Fewest systems of which differences are shown."""


@dataclass(frozen=True)
class Drawn:
    """The measures of one system on the data themselves and on every resample.

    Attributes:
        one: The system.
        cut: Score from which an eye is predicted referable; NaN if validation eyes cannot fix one.
        draws: Measure to (1 + B,), the value on the data themselves first; NaN where undefined.
        enough: Measure to whether there are enough patients for an interval.
    """

    one: Compared
    cut: float
    draws: dict[str, np.ndarray]
    enough: dict[str, bool]


def cut_of(one: Compared, specificity: float) -> float:
    """The least cut of the score with a wanted specificity on validation eyes; NaN if there is no validation eye below grade 2."""
    known = one.part("validation").dropna(subset="grade")
    positive = known["grade"].to_numpy(float) >= CUT
    if not (~positive).any():
        return float("nan")
    return calibration.least_threshold(known["score"].to_numpy(float), positive, specificity)


def draw(one: Compared, specificity: float, resamples: int, seed: int) -> Drawn | None:
    """All measures of one system on its test eyes.

    Args:
        one: The system.
        specificity: As in :func:`cut_of`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        None if no test eye has a grade.
    """
    test = one.part("test").dropna(subset="grade").reset_index(drop=True)
    if test.empty:
        return None
    patients = test["patient_id"].to_numpy(str)
    weights = statistics.image_weights(patients, resamples, seed)
    grade, score = test["grade"].to_numpy(int), test["score"].to_numpy(float)
    positive, cut = grade >= CUT, cut_of(one, specificity)
    found = multilabel.measures(positive, score, score >= cut, weights)
    undefined = np.full(len(weights), np.nan)
    draws = {"qwk": _qwk(grade, test["predicted"], weights), "auc": found["auc"]}
    for name in ("sensitivity", "specificity"):
        draws[name] = undefined if np.isnan(cut) else found[name]
    draws |= _calibration(positive, test["probability"].to_numpy(float), weights)
    sides = [len(set(patients[chosen])) for chosen in (positive, ~positive)]
    enough = {name: multilabel.enough(name, *sides) for name in ("auc", "sensitivity", "specificity")}
    whole = dict.fromkeys(("qwk", "ece", "brier"), statistics.enough_patients(patients))
    return Drawn(one, cut, {name: draws[name] for name in MEASURES}, enough | whole)


def _qwk(grade: np.ndarray, predicted: pd.Series, weights: np.ndarray) -> np.ndarray:
    """Quadratic weighted kappa for every row of weights; NaN for a system that predicts no grade."""
    if predicted.isna().any():
        return np.full(len(weights), np.nan)
    counts = statistics.weighted_confusion(weights, grade, predicted.to_numpy(int))
    return metrics.from_confusion(counts)["qwk"]


def _calibration(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Expected calibration error, in the bins of the test eyes themselves, and Brier score, for every row of weights."""
    if np.isnan(probability).any():
        nothing = np.full(len(weights), np.nan)
        return {"ece": nothing, "brier": nothing}
    place = calibration.bin_of(probability, calibration.edges(probability))
    squares = statistics.weighted_sums(weights, (positive - probability) ** 2)
    return {
        "ece": calibration.weighted_ece(probability, positive, place, weights),
        "brier": metrics.ratio(squares, weights.sum(axis=1)),
    }


def scores(drawn: Sequence[Drawn]) -> pd.DataFrame:
    """Every measure of every system with its interval.

    Returns:
        Long: ``system, measure, value, lo, hi, n_valid, cut, same_eyes``. NaN where undefined; no interval with fewer than five patients
        on whom the measure rests.
    """
    rows = []
    for each in drawn:
        about = {"cut": each.cut, "same_eyes": each.one.same_eyes}
        for name in MEASURES:
            numbers = statistics.from_weights(each.draws[name], each.enough[name])
            rows.append({"system": each.one.label, "measure": name, **numbers, **about})
    columns = ["system", "measure", "value", "lo", "hi", "n_valid", "cut", "same_eyes"]
    return pd.DataFrame(rows, columns=columns)


def differences(drawn: Sequence[Drawn], references: Sequence[Compared]) -> pd.DataFrame:
    """Every system minus each reference network, on the same resamples of the same eyes.

    A system with other test eyes has no row. p-values are two-sided, from the bootstrap over patients; Holm's adjustment allows for the number of
    systems that are compared with one reference by one measure.

    Returns:
        Long: ``system, minus, measure, value, lo, hi, n_valid, p, p_holm``.
    """
    rows = []
    for reference in references:
        base = next((one for one in drawn if one.one is reference), None)
        others = [one for one in drawn if one.one.same_eyes and one.one is not reference]
        for name in MEASURES if base is not None else ():
            rows += _against(base, others, name)
    columns = ["system", "minus", "measure", "value", "lo", "hi", "n_valid", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def _against(base: Drawn, others: Sequence[Drawn], name: str) -> list[dict]:
    """Rows of one measure against one reference, adjusted together; undefined differences are left out."""
    rows = []
    for one in others:
        gap = one.draws[name] - base.draws[name]
        if np.isnan(gap[0]):
            continue
        enough = one.enough[name] and base.enough[name]
        numbers = statistics.from_weights(gap, enough)
        about = {"system": one.one.label, "minus": base.one.label, "measure": name}
        rows.append(about | numbers | {"p": tests.p_value(gap[1:]) if enough else np.nan})
    for row, adjusted in zip(rows, tests.holm([row["p"] for row in rows])):
        row["p_holm"] = float(adjusted)
    return rows


def pairs(drawn: Sequence[Drawn], name: str) -> pd.DataFrame:
    """All pairs of systems with the same eyes by one measure: ``a, b, p_holm``, adjusted for the number of pairs."""
    own = [one for one in drawn if one.one.same_eyes and not np.isnan(one.draws[name][0])]
    rows = []
    for place, one in enumerate(own):
        for other in own[place + 1 :]:
            gap = one.draws[name] - other.draws[name]
            enough = one.enough[name] and other.enough[name]
            p = tests.p_value(gap[1:]) if enough else np.nan
            rows.append({"a": one.one.label, "b": other.one.label, "p": p})
    found = pd.DataFrame(rows, columns=["a", "b", "p"])
    return found.assign(p_holm=tests.holm(found["p"].to_numpy(float)))
