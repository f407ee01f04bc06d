"""The difference of two models with its interval, clustered by patient, for every metric of Table 2: against scipy.stats.bootstrap.

Ours is :func:`drstudy.evaluation.statistics.paired_difference` for all of its metrics. The other is what a user of SciPy writes:
``scipy.stats.bootstrap`` draws patients, and its statistic gathers their images and asks scikit-learn for each metric of both models. One call
gives all metrics, which favours it: users mostly call it once per metric. It is timed on a few resamples and extrapolated to as many as
ours draws; the metrics that ours has beyond these are in its time.

The point values of both must be equal. The resamples of both are drawn by different generators, so intervals agree only within Monte Carlo
noise. They are compared on fewer patients and metrics, with as many resamples on both sides. The noise of a limit is its standard deviation
over repetitions of ours with other seeds, times the square root of two, since both limits have it. ``greatest gap of limits`` is in these units;
``same result`` needs at most 4.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from bootstrap import CUTS, cohort
from side_by_side import alternate, options, report, set_threads

CHECKED = ("accuracy", "qwk", "sensitivity_ge2", "specificity_ge2", "auc_ge2")
"""Metrics whose intervals are compared."""

SEEDS = 30
"""Repetitions of ours from which the noise of a limit is estimated."""

MOST_GAP = 4.0


def second_model(predictions: pd.DataFrame) -> pd.DataFrame:
    """A model that errs in other places: the probabilities of the first, each row blended with noise."""
    noise = np.random.default_rng(1).dirichlet(np.ones(5), len(predictions))
    columns = [f"p{k}" for k in range(5)]
    blended = 0.6 * predictions[columns].to_numpy() + 0.4 * noise
    return predictions.assign(**dict(zip(columns, blended.T)))


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        patients=(10_000, 1_000, "patients, two eyes each"),
        resamples=(2_000, 400, "resamples of ours"),
        loop=(4, 4, "resamples of SciPy's that are timed, extrapolated"),
        few=(250, 150, "patients whose intervals are compared"),
        compared=(600, 300, "resamples of both for these intervals"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    from drstudy.evaluation import statistics

    first = cohort(given.patients)
    second = second_model(first)
    everyone = Users(first, second, every_metric())
    seconds, results = alternate(
        {
            "ours": lambda: statistics.paired_difference(first, second, given.resamples, 0),
            "scipy": lambda: everyone.interval(given.loop),
        },
        given.repeats,
    )
    values = results["ours"].set_index("metric")["value"]
    theirs = everyone(np.arange(given.patients))
    gap = float(np.abs(values[list(everyone.metrics)].to_numpy() - theirs).max())
    limits = gap_of_limits(given.few, given.compared)
    report(
        "bootstrap of a paired difference, against scipy",
        seconds["ours"],
        seconds["scipy"] * given.resamples / given.loop,
        f"s for {given.resamples} resamples, SciPy extrapolated from {given.loop}",
        gap < 1e-12 and limits <= MOST_GAP,
        greatest_difference_of_values=gap,
        greatest_gap_of_limits=limits,
        resamples_of_compared_limits=given.compared,
        patients=given.patients,
        metrics_ours=len(values),
        metrics_scipy=len(theirs),
    )


def every_metric() -> dict:
    """Metrics by name: functions of grades, predicted grades and scores of each threshold, by scikit-learn."""
    from sklearn.metrics import accuracy_score, cohen_kappa_score, recall_score, roc_auc_score

    found = {
        "accuracy": lambda y, z, s: accuracy_score(y, z),
        "qwk": lambda y, z, s: cohen_kappa_score(y, z, weights="quadratic"),
    }
    found |= {f"recall_grade{k}": lambda y, z, s, k=k: recall_score(y == k, z == k) for k in range(5)}
    for cut in CUTS:
        found |= {
            f"sensitivity_ge{cut}": lambda y, z, s, cut=cut: recall_score(y >= cut, z >= cut),
            f"specificity_ge{cut}": lambda y, z, s, cut=cut: recall_score(y < cut, z < cut),
            f"accuracy_ge{cut}": lambda y, z, s, cut=cut: accuracy_score(y >= cut, z >= cut),
            f"auc_ge{cut}": lambda y, z, s, cut=cut: roc_auc_score(y >= cut, s[:, cut]),
        }
    return found


class Users:
    """The statistic that a user of SciPy writes, and its interval.

    Args:
        first, second: Predictions of two models for the same images.
        metrics: As of :func:`every_metric`.
    """

    def __init__(self, first: pd.DataFrame, second: pd.DataFrame, metrics: dict) -> None:
        self.metrics, self.grade = metrics, first["grade"].to_numpy()
        patients = first["patient_id"].to_numpy()
        order = np.argsort(patients, kind="stable")
        _, starts = np.unique(patients[order], return_index=True)
        self.images = np.split(order, starts[1:])
        self.models = []
        for frame in (first, second):
            p = frame[[f"p{k}" for k in range(5)]].to_numpy()
            self.models.append((p.argmax(1), np.cumsum(p[:, ::-1], axis=1)[:, ::-1]))

    def __call__(self, drawn: np.ndarray) -> np.ndarray:
        """The difference in each metric on the images of the drawn patients (numbers, with repetitions)."""
        images = np.concatenate([self.images[patient] for patient in drawn])
        y = self.grade[images]
        of_each = [
            [metric(y, z[images], s[images]) for metric in self.metrics.values()] for z, s in self.models
        ]
        return np.subtract(*of_each)

    def interval(self, resamples: int):
        """SciPy's percentile interval over patients."""
        from scipy.stats import bootstrap

        return bootstrap(
            (np.arange(len(self.images)),),
            self,
            n_resamples=resamples,
            batch=1,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(2),
        ).confidence_interval


def gap_of_limits(patients: int, resamples: int) -> float:
    """Greatest difference of SciPy's limits from ours, in standard deviations of the Monte Carlo noise of such a difference."""
    from drstudy.evaluation import statistics

    first = cohort(patients)
    second = second_model(first)
    every = every_metric()
    theirs = Users(first, second, {name: every[name] for name in CHECKED}).interval(resamples)
    ours = [
        statistics.paired_difference(first, second, resamples, seed)
        .set_index("metric")
        .loc[list(CHECKED), ["lo", "hi"]]
        .to_numpy()
        for seed in range(1 + SEEDS)
    ]
    noise = np.std(ours[1:], axis=0, ddof=1) * np.sqrt(2)
    return float((np.abs(ours[0] - np.column_stack([theirs.low, theirs.high])) / noise).max())


if __name__ == "__main__":
    main()
