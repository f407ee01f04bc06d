"""Tables of notebook 22: the matrix of training and test sets, what prevalence explains, the ablation, and the learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import PROBABILITIES
from drstudy.evaluation import growth, metrics, prevalence, statistics
from drstudy.papers.external.cohorts import POOLED
from drstudy.papers.external.crossed import Trained
from drstudy.papers.external.recipes import STUDY
from drstudy.show import intervals

METRICS = {
    "qwk": "QWK",
    "auc_ge1": "AUC, grade ≥ 1",
    "auc_ge2": "AUC, grade ≥ 2",
    "sensitivity_ge2": "sensitivity, grade ≥ 2",
    "specificity_ge2": "specificity, grade ≥ 2",
    "ece_ge2": "calibration error, grade ≥ 2 (lower is better)",
}
"""What is reported, with headings."""

DRAWN = 50
"""Numbers of photographs at which a law is drawn."""

OWN, COMMON = "own", "common"
"""Mixes of grades: each test set's own, and the mean mix of all test sets."""

Draws = Mapping[tuple[str, str, str], Mapping[str, np.ndarray]]
"""(training set, test set, mix) to :func:`drstudy.evaluation.prevalence.drawn`."""


def drawn(
    predictions: Mapping[str, pd.DataFrame], resamples: int, seed: int
) -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
    """Scores of every training set on every test set, at both mixes, on the data and on each resample.

    Args:
        predictions: Training set to test predictions with the column ``set``.
        resamples, seed: Number of resamples of the patients, and seed; the same resamples for all training sets.
    """
    first = next(iter(predictions.values()))
    tests = list(first["set"].unique())
    wanted = prevalence.common([first.loc[first["set"] == test, "grade"].to_numpy(int) for test in tests])
    found = {}
    for training, frame in predictions.items():
        for test in tests:
            rows = frame[frame["set"] == test].reset_index(drop=True)
            found[training, test, OWN] = prevalence.drawn(rows, resamples, seed)
            found[training, test, COMMON] = prevalence.drawn(rows, resamples, seed, wanted)
    return found


def mixes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Share of each grade in every test set, and in the common mix to which they are weighted."""
    tests = {name: rows["grade"].to_numpy(int) for name, rows in predictions.groupby("set", sort=False)}
    shares = {name: prevalence.shares(grades) for name, grades in tests.items()}
    shares["common mix"] = prevalence.common(list(tests.values()))
    return pd.DataFrame(shares, index=[f"grade {grade}" for grade in range(5)]).T.rename_axis("set")


def matrix(draws: Draws) -> pd.DataFrame:
    """Long: ``training, test, mix, metric, value, lo, hi, n_valid``."""
    rows = [
        prevalence.summary(each).assign(training=training, test=test, mix=mix)
        for (training, test, mix), each in draws.items()
    ]
    columns = ["training", "test", "mix", "metric", "value", "lo", "hi", "n_valid"]
    return pd.concat(rows, ignore_index=True)[columns]


def display(table: pd.DataFrame, mix: str) -> pd.DataFrame:
    """:func:`matrix` for readers: one row per metric and training set, one column per test set, at one mix."""
    rows = table[table["mix"] == mix]
    rows = rows.assign(text=intervals.column(rows), heading=rows["metric"].map(METRICS))
    wide = rows.pivot(index=["heading", "training"], columns="test", values="text")
    order = pd.MultiIndex.from_product(
        [[one for one in METRICS.values() if one in set(rows["heading"])], rows["training"].unique()],
        names=["score", "trained on"],
    )
    return wide.reindex(order)[list(rows["test"].unique())].rename_axis(columns=None)


def shifts(draws: Draws) -> pd.DataFrame:
    """For each training set: what changes from its own test images to those of each other set, and how much of it is prevalence.

    Returns:
        Long: ``training, test, metric, part, value, lo, hi, n_valid``; see :func:`drstudy.evaluation.prevalence.separate`.
    """
    rows = []
    for training, test in {(one, other): None for one, other, _ in draws}:
        if training in (POOLED, test) or (training, training, OWN) not in draws:
            continue
        inside, outside = (
            {mix: draws[training, where, mix] for mix in (OWN, COMMON)} for where in (training, test)
        )
        rows.append(prevalence.separate(inside, outside).assign(training=training, test=test))
    if not rows:
        return pd.DataFrame(columns=["training", "test", "metric", "part", "value", "lo", "hi", "n_valid"])
    columns = ["training", "test", "metric", "part", "value", "lo", "hi", "n_valid"]
    return pd.concat(rows, ignore_index=True)[columns]


def shifts_display(
    table: pd.DataFrame, names: Sequence[str] = ("qwk", "auc_ge2", "sensitivity_ge2")
) -> pd.DataFrame:
    """:func:`shifts` for readers: one row per training and test set and metric, one column per part."""
    rows = table[table["metric"].isin(names)]
    if rows.empty:
        return pd.DataFrame(columns=["total", "prevalence", "rest"])
    texts = [intervals.text(*one, 2, signs="value") for one in rows[["value", "lo", "hi"]].to_numpy(float)]
    rows = rows.assign(text=texts, score=rows["metric"].map(METRICS))
    keys = ["score", "training", "test"]
    wide = rows.pivot(index=keys, columns="part", values="text")
    return wide.reindex(pd.MultiIndex.from_frame(rows[keys].drop_duplicates()))[
        ["total", "prevalence", "rest"]
    ].rename_axis(columns=None)


def differences(first: pd.DataFrame, second: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Scores of ``first`` minus those of ``second`` on each test set, paired by image and by resample.

    Returns:
        Long: ``test, metric, value, lo, hi, n_valid``.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If the two are not of the same images.
    """
    statistics.check_same_images(first, second)
    rows = []
    for test, mine in first.groupby("set", sort=False):
        theirs = second[second["set"] == test].set_index("image_id").loc[mine["image_id"]].reset_index()
        a, b = (prevalence.drawn(one.reset_index(drop=True), resamples, seed) for one in (mine, theirs))
        change = {name: a[name] - b[name] for name in a}
        rows.append(prevalence.summary(change).assign(test=test))
    return pd.concat(rows, ignore_index=True)[["test", "metric", "value", "lo", "hi", "n_valid"]]


def ablation(by_recipe: Mapping[str, pd.DataFrame], resamples: int, seed: int) -> pd.DataFrame:
    """Scores of each recipe, and paired differences to the recipe before it and to the first one.

    Args:
        by_recipe: Name of a recipe to its test predictions, in the order of the steps; :data:`drstudy.papers.external.recipes.STUDY`, which
            is no step, is compared with the first one only.
        resamples, seed: As in :func:`drawn`.

    Returns:
        Long: ``recipe, what`` (``score``, ``step`` or ``total``), ``test, metric, value, lo, hi, n_valid``.
    """
    names, rows = list(by_recipe), []
    for place, name in enumerate(names):
        for test, frame in by_recipe[name].groupby("set", sort=False):
            own = prevalence.summary(prevalence.drawn(frame.reset_index(drop=True), resamples, seed))
            rows.append(own.assign(recipe=name, what="score", test=test))
        others = {"total": names[0]} | ({"step": names[place - 1]} if name != STUDY else {})
        for what, other in others.items() if place else ():
            change = differences(by_recipe[name], by_recipe[other], resamples, seed)
            rows.append(change.assign(recipe=name, what=what))
    columns = ["recipe", "what", "test", "metric", "value", "lo", "hi", "n_valid"]
    return pd.concat(rows, ignore_index=True)[columns]


FINE_TUNED = "fine-tuned (fixed)"
"""Name of the network of notebook 03 beside the recipes: the main paper's way with its oddities mended."""


def beside_fine_tuned(
    chosen: pd.DataFrame, tuned: pd.DataFrame, sets: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Scores of a fine-tuned network and of the recipe that validation chose, on the test eyes of the former that are in these sets.

    Args:
        chosen: Test predictions of the recipe, from the folds in which the eyes were held out.
        tuned: Test predictions of the network: ``image_id, patient_id, grade, p0..p4``.
        sets: Names of the sets whose photographs both have seen in the same form.
        resamples, seed: As in :func:`drawn`.

    Returns:
        As :func:`ablation`.

    Raises:
        drstudy.evaluation.metrics.PredictionError: If no test eye of the network is in these sets.
    """
    own = chosen[chosen["set"].isin(sets) & chosen["image_id"].isin(tuned["image_id"])]
    if own.empty:
        raise metrics.PredictionError(
            f"None of the {len(tuned)} test eyes of FINE_TUNED is in the sets {', '.join(sets)}. Point it to a network of this profile."
        )
    kept = ["image_id", "patient_id", "grade", *PROBABILITIES]
    theirs = own[["image_id", "set"]].merge(tuned[kept], on="image_id", validate="one_to_one")
    theirs["predicted"] = theirs[PROBABILITIES].to_numpy(float).argmax(axis=1)
    theirs["called"] = theirs["predicted"] >= 2
    return ablation({FINE_TUNED: theirs, STUDY: own.reset_index(drop=True)}, resamples, seed)


def fine_tuned_display(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`beside_fine_tuned` for readers: one row per recipe, and one for the difference."""
    scores, change = (ablation_display(table, what) for what in ("score", "total"))
    return pd.concat([scores, change.rename(index={STUDY: f"{STUDY} minus {FINE_TUNED}"})])


def ablation_display(
    table: pd.DataFrame, what: str, names: Sequence[str] = ("qwk", "auc_ge2")
) -> pd.DataFrame:
    """:func:`ablation` for readers: one row per recipe, one column per test set and metric."""
    rows = table[(table["what"] == what) & table["metric"].isin(names)]
    signs = "minus" if what == "score" else "value"
    texts = [intervals.text(*one, 2, signs=signs) for one in rows[["value", "lo", "hi"]].to_numpy(float)]
    rows = rows.assign(text=texts, column=rows["test"] + ", " + rows["metric"].map(METRICS))
    wide = rows.pivot(index="recipe", columns="column", values="text")
    return wide.loc[rows["recipe"].unique(), rows["column"].unique()].rename_axis(columns=None)


def choices(trained: Mapping[str, Trained]) -> pd.DataFrame:
    """Which recipe validation chose: one row per training set and fold, with the validation criterion of each recipe."""
    rows = []
    for training, one in trained.items():
        wide = one.criteria.pivot(index="fold", columns="recipe", values="criterion")
        wide = wide[one.criteria["recipe"].unique()]
        taken = [one.chosen[fold][0] for fold in wide.index]
        rows.append(wide.assign(chosen=taken, training=training).reset_index())
    return pd.concat(rows, ignore_index=True).rename_axis(columns=None)


def curve_draws(
    curve: Mapping[int, Sequence[pd.DataFrame]],
    resamples: int,
    seed: int,
    names: Sequence[str] = ("qwk", "auc_ge2"),
) -> dict[tuple[str, str], np.ndarray]:
    """Scores by number of training photographs, on the data and on resamples of test patients and of draws of training patients.

    Args:
        curve: Result of :func:`drstudy.papers.external.crossed.curve`.
        resamples, seed: As in :func:`drawn`.
        names: Names of the metrics.

    Returns:
        (test set, metric) to (1 + B, sizes). The first row is the mean over the draws of training patients; each other row takes one of
        the draws for each size at random, so it varies with the training patients too.
    """
    tests = list(next(iter(curve.values()))[0]["set"].unique())
    random = np.random.default_rng(seed)
    found = {(test, name): [] for test in tests for name in names}
    for frames in curve.values():
        picked = random.integers(len(frames), size=resamples)
        for test in tests:
            each = [
                prevalence.drawn(frame[frame["set"] == test].reset_index(drop=True), resamples, seed)
                for frame in frames
            ]
            for name in names:
                values = np.stack([one[name] for one in each])
                resampled = values[picked, np.arange(1, resamples + 1)]
                found[test, name].append(np.concatenate([values[:, :1].mean(axis=0), resampled]))
    return {key: np.stack(columns, axis=1) for key, columns in found.items()}


def curves(
    draws: Mapping[tuple[str, str], np.ndarray], sizes: Sequence[int], predicted: Sequence[int]
) -> pd.DataFrame:
    """Measured scores by number of training photographs, and the fitted law at these and at further numbers.

    Returns:
        Long: ``test, metric, what, size, value, lo, hi, n_valid, extrapolated``. ``what`` is ``measured``; ``predicted``, the law at the
        numbers asked for; or ``law``, the same at many numbers, for a figure. There is no law with fewer than
        :data:`drstudy.evaluation.growth.FEWEST_SIZES` sizes.
    """
    rows = []
    dense = np.geomspace(min(sizes), max([*sizes, *predicted]), DRAWN)
    for (test, name), values in draws.items():
        for size, column in zip(sizes, values.T):
            found = {"size": size, **statistics.from_weights(column), "extrapolated": False}
            rows.append({"test": test, "metric": name, "what": "measured", **found})
        for what, at in (("predicted", np.asarray(predicted)), ("law", dense)):
            if len(sizes) >= growth.FEWEST_SIZES and len(at):
                law = growth.band(np.asarray(sizes), values, at)
                rows += [
                    {"test": test, "metric": name, "what": what, **row} for row in law.to_dict("records")
                ]
    return pd.DataFrame(rows)


def curves_display(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`curves` for readers: one row per number of photographs, one column per test set and metric; predictions of the law are marked."""
    kept = table[table["what"] != "law"]
    kept = kept.assign(
        text=intervals.column(kept),
        column=kept["test"] + ", " + kept["metric"].map(METRICS),
        label=[
            f"{size:.0f}" + (", extrapolated" if far else "")
            for size, far in zip(kept["size"], kept["extrapolated"])
        ],
    )
    wide = kept.pivot(index=["size", "label"], columns="column", values="text")[kept["column"].unique()]
    return wide.droplevel("size").rename_axis(index="training photographs", columns=None)


def scores_of(table: pd.DataFrame) -> dict[str, float]:
    """Metrics for the record: ``<training>_on_<test>_<metric>`` with ``_lo`` and ``_hi``, at each test set's own mix."""
    found = {}
    for row in table[table["mix"] == OWN].itertuples():
        name = f"{row.training}_on_{row.test}_{row.metric}".replace(" ", "_")
        found |= {name: row.value, f"{name}_lo": row.lo, f"{name}_hi": row.hi}
    return found


def describe(table: pd.DataFrame) -> str:
    """Sentences made of the matrix: who is best where, and whether pooling costs anything."""
    lines = []
    rows = table[table["mix"] == OWN].set_index(["training", "test", "metric"])
    for test in table["test"].unique():
        for name in ("qwk", "auc_ge2"):
            of_test = rows.xs((test, name), level=("test", "metric"))
            best = of_test["value"].idxmax()
            value = intervals.text(*of_test.loc[best, ["value", "lo", "hi"]].astype(float))
            line = f"{METRICS[name]} on {test} is highest with the training set {best}: {value}."
            if POOLED in of_test.index and best != POOLED:
                value = intervals.text(*of_test.loc[POOLED, ["value", "lo", "hi"]].astype(float))
                line += f" The pooled training set has {value}."
            lines.append(line)
    return "\n".join(lines)
