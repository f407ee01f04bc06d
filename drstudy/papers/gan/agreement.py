"""Tests of generated photographs by classifiers: are they real or generated, which grade do they show, and can a classifier learn the grades from them?

- A classifier that has to separate generated from real pictures shows how far they differ. An AUC of 0.5 would mean that this classifier finds no
  difference; the control, real training against real test photographs, shows what the method gives where there is none.
- A head that learns from generated pictures alone and is tested on real photographs shows what they carry of the grades.
- The grading network says for each requested grade how often it agrees. Real photographs at the generator's size are the control, since the network
  has learnt from larger ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from drstudy.core.devices import Compute
from drstudy.core.names import GRADES
from drstudy.evaluation import metrics, multilabel, statistics
from drstudy.explain.methods import cam, methods
from drstudy.models.nets import GradingNet
from drstudy.papers.gan import arm_tables, arms, pictures
from drstudy.papers.gan.heads import HeadRecipe, Known
from drstudy.papers.gan.pictures import Pictures
from drstudy.show import intervals
from drstudy.training import prediction, transforms

REGULARISATION = 0.01
"""Inverse strength C of the L2 penalty of the real-or-generated classifier; there are more features than pictures. Ours."""

TAUGHT_BY: Mapping[str, str] = {
    "real": "real photographs",
    "real_small": "real photographs at the generator's size",
    "generated": "generated pictures",
}
"""Training sets of :func:`train_on_generated` and their printed names."""


def real_or_generated(
    real: np.ndarray,
    generated: np.ndarray,
    patients: tuple[np.ndarray, np.ndarray],
    folds: int,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """AUC of a classifier that separates two sets of pictures, by cross-validation in which no patient is on both sides.

    The classifier is a logistic regression on standardised features. Each picture is scored by the classifier of the fold that has not seen its
    patient.

    Args:
        real, generated: (N, D) and (M, D) features.
        patients: Patients of both, (N,) and (M,); each generated picture is one of its own.
        folds: Number of folds, at least 2.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of folds and draws.

    Returns:
        ``value, lo, hi, n_valid``, and ``pictures``, N + M. Above 0.5 the classifier recognises generated pictures. ``lo`` and ``hi`` are NaN if either set has too
        few patients (:func:`drstudy.evaluation.statistics.enough_patients`).

    Raises:
        ValueError: If a set has fewer patients than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fewest = min(len(np.unique(some)) for some in patients)
    if folds < 2 or fewest < folds:
        raise ValueError(
            f"FOLDS is {folds}, but the smaller set has {fewest} patients; there must be at least 2 folds and a patient of each set in each."
        )
    features = np.concatenate([real, generated]).astype(np.float64)
    label = np.repeat([0, 1], [len(real), len(generated)])
    groups = np.concatenate([np.asarray(some, dtype=str) for some in patients])
    score = np.empty(len(label))
    division = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in division.split(features, label, groups):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=1000))
        score[test] = classifier.fit(features[train], label[train]).decision_function(features[test])
    weights = statistics.image_weights(groups, resamples, seed)
    drawn = multilabel.measures(label == 1, score, score > 0, weights)["auc"]
    enough = all(statistics.enough_patients(some) for some in patients)
    return statistics.from_weights(drawn, enough) | {"pictures": len(label)}


def train_on_generated(
    found: arms.Material, p: HeadRecipe, seeds: int, compute: Compute
) -> dict[str, list[pd.DataFrame]]:
    """Heads that learn from one kind of pictures only, with as many of each grade as the training split has, tested on real photographs.

    Args:
        found: Result of :func:`drstudy.papers.gan.arms.material`.
        p: Recipe of the heads; seeds count from ``p.seed``.
        seeds: Number of seeds.
        compute: Device and precision.

    Returns:
        Key of :data:`TAUGHT_BY` to its predictions on the test photographs, one table per seed. :mod:`drstudy.papers.gan.arm_tables` makes scores and
        differences of them.

    Raises:
        ValueError: If the training split has a grade of which there is no generated picture.
    """
    predictions: dict[str, list[pd.DataFrame]] = {name: [] for name in TAUGHT_BY}
    for seed in range(p.seed, p.seed + seeds):
        recipe = p.model_copy(update={"seed": seed})
        places = pictures.by_counts(found.fakes.grades, found.train.counts, np.random.default_rng(seed))
        taught: dict[str, Known] = {
            "real": found.train,
            "real_small": found.small,
            "generated": found.fakes.take(places),
        }
        for name, known in taught.items():
            predictions[name].append(arms.tested(found, known, recipe, compute))
    return predictions


def taught_scores(predictions: Mapping[str, list[pd.DataFrame]], resamples: int, seed: int) -> pd.DataFrame:
    """Scores of :func:`train_on_generated`, and their differences to real photographs at the generator's size.

    Args:
        predictions: Result of :func:`train_on_generated`.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of its draws.

    Returns:
        ``taught_by, metric, value, lo, hi, seed_std``, and ``difference, difference_lo, difference_hi`` (NaN for ``real_small`` itself).
    """
    seeds = arm_tables.by_seed(predictions)
    draws = arm_tables.resampled(predictions, resamples, seed)
    whole = arm_tables.scores(seeds, draws)
    gaps = arm_tables.differences(seeds, draws, to="real_small")
    named = gaps.rename(columns={"value": "difference", "lo": "difference_lo", "hi": "difference_hi"})
    columns = ["arm", "metric", "difference", "difference_lo", "difference_hi"]
    joined = whole.merge(named[columns], on=["arm", "metric"], how="left")
    return joined.rename(columns={"arm": "taught_by"}).drop(columns=["n_valid", "seeds"])


def graded(net: GradingNet, some: Pictures, compute: Compute) -> pd.DataFrame:
    """Predictions of the grading network for pictures, as a table.

    Args:
        net: Result of :func:`drstudy.training.prediction.load`.
        some: Real or generated pictures, of any size.
        compute: Device and precision.

    Returns:
        ``image_id, patient_id, split, grade, p0..p4``.
    """
    table = pd.DataFrame(
        {
            "image_id": [f"{number:06d}" for number in range(len(some))],
            "patient_id": some.patients,
            "split": "all",
            "grade": some.grades,
        }
    )
    return prediction.frame(table, prediction.predict(net, some.images, compute, net.input_size))


def by_grade(
    predictions: Mapping[str, pd.DataFrame],
    resamples: int,
    seed: int,
    mix: np.ndarray | None = None,
    generable: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """How often the grading network agrees with the requested (or observed) grade.

    Args:
        predictions: Name of a set to the result of :func:`graded`.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of its draws and of the choice by ``mix``.
        mix: (5,) numbers of pictures of each grade on which kappa is taken, in every set: it depends on the mix of grades. ``None`` takes kappa on each set as
            it is.
        generable: Result of :func:`drstudy.papers.gan.survival.generable` at the size of the pictures; ``None`` is ``not measurable``.

    Returns:
        ``set, grade, generable, pictures, value, lo, hi``: the share of each grade that is predicted as this grade, of all pictures of the grade. The row with
        the grade ``all`` has the quadratic weighted kappa instead, and an empty ``generable``. NaN where a set has no picture of a grade.

    Raises:
        ValueError: If ``mix`` wants pictures of a grade of which a set has none.
    """
    rows = []
    for name, frame in predictions.items():
        found = statistics.bootstrap(frame, resamples, seed).set_index("metric")
        mixed = frame if mix is None else _of_mix(frame, mix, seed)
        kappa = found if mix is None else statistics.bootstrap(mixed, resamples, seed).set_index("metric")
        for grade in GRADES:
            possible = "not measurable" if generable is None else generable[grade]
            count = int((frame["grade"] == grade).sum())
            row = {"set": name, "grade": str(grade), "generable": possible, "pictures": count}
            rows.append(row | found.loc[f"recall_grade{grade}", ["value", "lo", "hi"]].to_dict())
        row = {"set": name, "grade": "all", "generable": "", "pictures": len(mixed)}
        rows.append(row | kappa.loc["qwk", ["value", "lo", "hi"]].to_dict())
    return pd.DataFrame(rows)


def _of_mix(frame: pd.DataFrame, mix: np.ndarray, seed: int) -> pd.DataFrame:
    """So many rows of each grade; a set with exactly these numbers stays as it is."""
    grades = frame["grade"].to_numpy(dtype=np.int64)
    if np.array_equal(np.bincount(grades, minlength=len(GRADES)), mix):
        return frame
    return frame.iloc[pictures.by_counts(grades, mix, np.random.default_rng(seed))].reset_index(drop=True)


def display(found: pd.DataFrame) -> pd.DataFrame:
    """For readers: one row per grade, ``generable``, then one column per set of :func:`by_grade`, with intervals."""
    texts = [intervals.text(*row) for row in found[["value", "lo", "hi"]].to_numpy()]
    order = [*map(str, GRADES), "all"]
    wide = found.assign(text=texts).pivot(index="grade", columns="set", values="text")
    wide = wide[list(found["set"].unique())].reindex(order)
    possible = found.drop_duplicates("grade").set_index("grade")["generable"].reindex(order)
    wide.insert(0, "generable", possible)
    return wide.rename(index={"all": "all (QWK)"}).rename_axis(index="grade", columns=None)


def confusion(predictions: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Name of a set to pictures by requested (row) and predicted (column) grade, (5, 5) int."""
    found = {}
    for name, frame in predictions.items():
        grade, _, predicted = metrics.arrays(frame)
        found[name] = metrics.confusion(grade, predicted)
    return found


def heat(net: GradingNet, some: Pictures, compute: Compute) -> np.ndarray:
    """Grad-CAM of the requested grade, at the size of the pictures: where the grading network looks.

    Args:
        net: Result of :func:`drstudy.training.prediction.load`.
        some: Pictures.
        compute: Device and precision.

    Returns:
        (N, S, S) float32, at least 0, in units of the class score per position.
    """
    x = compute.put(transforms.to_input(some.images, net.input_size, net.mean, net.std))
    raw = methods.evidence(methods.explain(net, x, "grad_cam", torch.from_numpy(some.grades)))
    return cam.upsample(raw, some.size)
