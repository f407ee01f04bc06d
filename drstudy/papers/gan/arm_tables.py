"""Tables of the arms: scores, paired differences with intervals over patients, and the spread over seeds beside them.

The interval of a difference resamples patients, with the mean over all seeds of an arm as its score. The spread over seeds keeps the patients
and varies the training. Neither contains the other, so they stand in separate columns. Intervals are one at a time; with ten arms and
many metrics some exclude 0 by chance. The primary outcome, fixed before the run, is ``recall_rare``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.evaluation import calibration, metrics, statistics
from drstudy.papers.gan import arms
from drstudy.show import intervals

RARE = (3, 4)
"""The rare grades: severe and proliferative disease."""

PRIMARY = "recall_rare"
"""The metric that answers the question of the arms: the mean recall of :data:`RARE`."""

METRICS: Mapping[str, str] = {
    PRIMARY: "recall, grades 3 and 4",
    **{f"recall_grade{grade}": f"recall, grade {grade}" for grade in range(5)},
    "qwk": "QWK",
    "macro_auc": "macro AUC",
    "sensitivity_ge2": "sensitivity, referable",
    "specificity_ge2": "specificity, referable",
    "ece": "calibration error",
}
"""Metric to its heading. A smaller calibration error is better, of all others a greater value."""

FALLING = ("ece",)
"""Metrics of which a smaller value is better."""

Predictions = Mapping[str, Sequence[pd.DataFrame]]
"""Arm to its predictions on the same test photographs, one table per seed."""


def values(predictions: pd.DataFrame) -> dict[str, float]:
    """Every metric of :data:`METRICS` of one trained head.

    Args:
        predictions: One row per test photograph: ``grade, p0..p4``.

    Returns:
        NaN where a metric is undefined, such as the recall of a grade that no test photograph has.
    """
    found = metrics.evaluate(predictions)
    found[PRIMARY] = _rare([np.asarray(found[f"recall_grade{grade}"]) for grade in RARE]).item()
    found["ece"] = calibration.ece(*calibration.confidence(predictions))
    return {name: found[name] for name in METRICS}


def _rare(recalls: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the recalls of the rare grades that are defined; NaN where none is."""
    stacked = np.stack(recalls).astype(float)
    return metrics.macro(np.moveaxis(stacked, 0, -1), np.moveaxis(~np.isnan(stacked), 0, -1).astype(float))


def drawn(frames: Sequence[pd.DataFrame], resamples: int, seed: int) -> pd.DataFrame:
    """Every metric on every resample of the patients, averaged over the seeds of one arm, (B, metrics).

    The bins of the calibration error stay those of the test photographs themselves, as in :mod:`drstudy.evaluation.calibration`.
    """
    total = 0
    for frame in frames:
        one = statistics.resampled(frame, resamples, seed)
        one = one.assign(
            **{
                PRIMARY: _rare([one[f"recall_grade{grade}"].to_numpy() for grade in RARE]),
                "ece": _drawn_ece(frame, resamples, seed),
            }
        )
        total = total + one[list(METRICS)]
    return total / len(frames)


def _drawn_ece(frame: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    said, right = calibration.confidence(frame)
    place = calibration.bin_of(said, calibration.edges(said))
    weights = statistics.image_weights(frame["patient_id"], resamples, seed)
    return calibration.weighted_ece(said, right, place, weights[1:])


def resampled(predictions: Predictions, resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """:func:`drawn` for every arm; :func:`scores` and :func:`differences` take it, so that it is computed once.

    With too few patients (:func:`drstudy.evaluation.statistics.enough_patients`) all draws are NaN, so that there is no interval.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If two tables are not about the same photographs.
    """
    frames = [frame for some in predictions.values() for frame in some]
    for frame in frames[1:]:
        statistics.check_same_images(frames[0], frame)
    if not statistics.enough_patients(frames[0]["patient_id"]):
        nothing = pd.DataFrame(np.nan, index=range(resamples), columns=list(METRICS))
        return dict.fromkeys(predictions, nothing)
    return {arm: drawn(some, resamples, seed) for arm, some in predictions.items()}


def by_seed(predictions: Predictions) -> pd.DataFrame:
    """Every metric of every trained head: ``arm, seed`` (from 0), ``metric, value``."""
    rows = [
        {"arm": arm, "seed": seed, "metric": metric, "value": value}
        for arm, frames in predictions.items()
        for seed, frame in enumerate(frames)
        for metric, value in values(frame).items()
    ]
    return pd.DataFrame(rows)


def scores(seeds: pd.DataFrame, draws: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every metric of every arm: the mean over the seeds, with its interval over patients.

    Args:
        seeds: Result of :func:`by_seed`.
        draws: Result of :func:`resampled`.

    Returns:
        ``arm, metric, value, lo, hi, n_valid, seed_std, seeds``; ``seed_std`` is the standard deviation over the seeds, NaN for a single one.
    """
    rows = []
    for (arm, metric), part in seeds.groupby(["arm", "metric"], sort=False):
        found = statistics.percentiles(part["value"].mean(), draws[arm][metric].to_numpy())
        spread = {"seed_std": part["value"].std(), "seeds": len(part)}
        rows.append({"arm": arm, "metric": metric} | found | spread)
    return pd.DataFrame(rows)


def differences(
    seeds: pd.DataFrame, draws: Mapping[str, pd.DataFrame], to: str = arms.NONE, of: Sequence[str] = ()
) -> pd.DataFrame:
    """Every metric of an arm minus that of another arm, both on the same resamples of the same photographs.

    Args:
        seeds: Result of :func:`by_seed`.
        draws: Result of :func:`resampled`.
        to: The arm that is subtracted.
        of: Arms; empty is all others.

    Returns:
        ``arm, to, metric, value, lo, hi, n_valid, seed_std, seed_lo, seed_hi, seeds``. ``seed_std``, ``seed_lo`` and ``seed_hi`` are standard
        deviation, least and greatest difference over the seeds, seed by seed.

    Raises:
        KeyError: If an arm was not trained.
    """
    of = list(of) or [arm for arm in draws if arm != to]
    if unknown := [arm for arm in (to, *of) if arm not in draws]:
        raise KeyError(f"The arm {unknown[0]!r} was not trained; there are {', '.join(draws)}.")
    wide = seeds.pivot(index=["arm", "metric"], columns="seed", values="value")
    rows = []
    for arm in of:
        for metric in METRICS:
            gaps = (wide.loc[(arm, metric)] - wide.loc[(to, metric)]).to_numpy()
            change = (draws[arm][metric] - draws[to][metric]).to_numpy()
            row = {"arm": arm, "to": to, "metric": metric} | statistics.percentiles(gaps.mean(), change)
            spread = {"seed_std": pd.Series(gaps).std(), "seed_lo": gaps.min(), "seed_hi": gaps.max()}
            rows.append(row | spread | {"seeds": len(gaps)})
    return pd.DataFrame(rows)


def display(table: pd.DataFrame, columns: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """For readers: one row per arm, one column per metric.

    Args:
        table: Result of :func:`scores`, printed as ``0.71 [0.62, 0.80]``, or of :func:`differences`, printed with a sign. The standard deviation
            over the seeds follows as ``; sd 0.03``.
        columns: Metrics.
    """
    signed = "to" in table
    shown = table[table["metric"].isin(columns)]
    texts = []
    for row in shown.to_dict("records"):
        style = {"signs": "all", "form": "(to)"} if signed else {}
        spread = "" if np.isnan(row["seed_std"]) else f"; sd {row['seed_std']:.2f}"
        texts.append(intervals.text(row["value"], row["lo"], row["hi"], 2, **style) + spread)
    wide = shown.assign(text=texts).pivot(index="arm", columns="metric", values="text")
    order = [arm for arm in arms.TITLES if arm in wide.index]
    wide = wide.reindex(index=order, columns=list(columns)).rename(columns=METRICS)
    return wide.set_axis([arms.TITLES[arm] for arm in order]).rename_axis(index=None, columns=None)


def findings(gaps: pd.DataFrame, metric: str = PRIMARY) -> list[str]:
    """One sentence per arm about one metric: computed, never typed.

    Args:
        gaps: Result of :func:`differences`.
        metric: Name in :data:`METRICS`.
    """
    sentences = []
    for row in gaps[gaps["metric"] == metric].to_dict("records"):
        shown = intervals.text(row["value"], row["lo"], row["hi"], 2, signs="all", form="(to)")
        to = arms.TITLES[row["to"]]
        if np.isnan(row["lo"]):
            verdict = "there are too few test photographs or patients for an interval"
        elif row["lo"] > 0 or row["hi"] < 0:
            better = (row["value"] > 0) != (metric in FALLING)
            verdict = f"the interval excludes 0, so it is {'better' if better else 'worse'}"
        else:
            verdict = "the interval contains 0, so no difference is shown"
        spread = (
            ""
            if np.isnan(row["seed_std"])
            else f"; over {row['seeds']} seeds {intervals.between(row['seed_lo'], row['seed_hi'], 2)}"
        )
        sentences.append(
            f"{METRICS[metric]}, of “{arms.TITLES[row['arm']]}” minus “{to}”: {shown}{spread}: {verdict}."
        )
    return sentences
