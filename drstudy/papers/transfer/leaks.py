"""What a leak is worth: the same images dealt into folds honestly, by image, and by row after oversampling.

Every image of the training split is tested once, by a network that was trained on the other folds. The ways differ
only in how the folds are dealt:

- ``patient``: whole patients (joined where they share a duplicate); rare grades are oversampled inside training.
- ``patient, again``: the same with other folds and another seed: what training again changes by itself.
- ``image``: image by image, so the fellow eye is often in training; oversampled inside training.
- ``row``: rows are drawn first, rare grades more often, and then dealt one by one, so copies of a test row are in
  training. This is oversampling before splitting.

Results on rows of the leaking ways are compared with the honest network's answers **on the same rows**, and all
networks also grade the patients of the validation split, whom none of them met. Nothing here reads the test split.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from drstudy.core.devices import Compute
from drstudy.data import splits
from drstudy.data.dataset import Dataset
from drstudy.evaluation import statistics
from drstudy.training import features, grading, loop, networks, prediction, sampling
from drstudy.training.recipe import Training

HONEST, AGAIN, BY_IMAGE, BY_ROW = "patient", "patient, again", "image", "row"
WAYS = (HONEST, AGAIN, BY_IMAGE, BY_ROW)
OVERSAMPLER = "inverse"
"""Balances the grades; of rows drawn before the split as of draws inside training."""


def without_test(data: Dataset) -> Dataset:
    """The images of a study with its training images, unaugmented, in the place of its test images.

    A feature store of it gives, beside the views for training, what cross-fitting needs: each training image as it is.
    """
    train, validation = data.part("train"), data.part("validation")
    table = pd.concat([train, validation, train.assign(split="test")], ignore_index=True)
    return Dataset(data.images, table, data.key)


def deal(
    images: pd.DataFrame, way: str, folds: int, seed: int, duplicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Deal images into folds, stratified by grade.

    **All but the two patient ways leak, on purpose.** No other module deals like this, and
    :func:`drstudy.data.dataset.load` refuses a split that does.

    Args:
        images: ``image_id, patient_id, grade``, one row an image.
        way: One of :data:`WAYS`.
        folds: 2 or more.
        seed: Of the draw and the deal.
        duplicates: Pairs ``image_id_a, image_id_b`` that ``patient`` keeps on one side.

    Returns:
        One row a dealt row: ``image`` (its place in ``images``), ``image_id, patient_id, grade, fold``. As many rows as
        images; each image once, except for ``row``, where rare grades come several times and common ones not always.

    Raises:
        ValueError: If the way is unknown.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if way not in WAYS:
        raise ValueError(f"There is no way {way!r} to deal; there are {', '.join(WAYS)}.")
    grades = images["grade"].to_numpy(dtype=int)
    rows = np.arange(len(images))
    if way == BY_ROW:
        rows = np.sort(sampling.draw(OVERSAMPLER, grades, torch.Generator().manual_seed(seed)).numpy())
    if way in (HONEST, AGAIN):
        folder = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + (way == AGAIN))
        groups = splits.join(images.reset_index(drop=True), duplicates).to_numpy()
    else:
        folder, groups = StratifiedKFold(folds, shuffle=True, random_state=seed), None
    dealt = images[["image_id", "patient_id", "grade"]].iloc[rows].reset_index(drop=True)
    dealt.insert(0, "image", rows)
    dealt["fold"] = 0
    for fold, (_, held) in enumerate(folder.split(rows, grades[rows], groups)):
        dealt.loc[held, "fold"] = fold
    return dealt


def exposure(dealt: pd.DataFrame, duplicates: pd.DataFrame | None = None) -> dict[str, int]:
    """How far the folds leak, in rows, each counted under the first that holds.

    Args:
        dealt: From :func:`deal`.
        duplicates: Pairs ``image_id_a, image_id_b``.

    Returns:
        ``rows``; of these ``copy`` (the same image is in training), ``duplicate`` (a duplicate of it), ``fellow``
        (another image of the patient).
    """
    counts = {"rows": len(dealt), "copy": 0, "duplicate": 0, "fellow": 0}
    pairs = (
        np.empty((0, 2), str) if duplicates is None else duplicates[["image_id_a", "image_id_b"]].to_numpy()
    )
    for fold, held in dealt.groupby("fold"):
        trained = dealt[dealt["fold"] != fold]
        known = set(trained["image_id"])
        near = [b for a, b in (*pairs, *pairs[:, ::-1]) if a in known]
        copied = held["image_id"].isin(trained["image_id"])
        duplicated = held["image_id"].isin(near) & ~copied
        fellow = held["patient_id"].isin(trained["patient_id"]) & ~copied & ~duplicated
        for name, found in (("copy", copied), ("duplicate", duplicated), ("fellow", fellow)):
            counts[name] += int(found.sum())
    return counts


@dataclass(frozen=True)
class CrossFit:
    """What the networks of one way of dealing answer.

    Attributes:
        way: One of :data:`WAYS`.
        dealt: From :func:`deal`.
        own: Predictions of the dealt rows, in their order, each by the network that was not trained on its fold.
        new: Predictions of the validation images by the network of every fold.

    In both, ``image_id`` has the row or the fold behind it, and ``patient_id`` is what it was, so that a bootstrap over
    patients keeps copies together.
    """

    way: str
    dealt: pd.DataFrame
    own: pd.DataFrame
    new: pd.DataFrame


def cross_fit(
    way: str, dealt: pd.DataFrame, data: Dataset, recipe: Training, compute: Compute, keep: bool = False
) -> CrossFit:
    """Train one network a fold, on the rows of the others, and let it answer.

    Args:
        way: As given to :func:`deal`.
        dealt: Of it, with the images of ``data.part("train")``.
        data: From :func:`without_test`.
        recipe: Its sampler gives way to :data:`OVERSAMPLER`, or to none where the rows are oversampled already.
        compute: Device and precision.
        keep: See :func:`drstudy.training.loop.fit`.
    """
    sampler, seed = ("none" if way == BY_ROW else OVERSAMPLER), recipe.seed + (way == AGAIN)
    recipe_here = recipe.model_copy(update={"sampler": sampler, "seed": seed})
    own, new = [], []
    for fold, held in dealt.groupby("fold"):
        net = networks.build(recipe_here, data, compute)
        store = features.open_features(net, data, recipe, compute)  # its seed: the same views for all ways
        trained = dealt.loc[dealt["fold"] != fold, "image"].to_numpy()
        with contextlib.redirect_stdout(io.StringIO()):  # its lines are about epochs; here folds count
            task = grading.Grading(net, features.Subset(store, trained), recipe_here, compute)
            loop.fit(task, keep=keep)
        answers = prediction.table(net, store, "test", compute).iloc[held["image"]].set_index(held.index)
        own.append(answers)
        new.append(_numbered(prediction.table(net, store, "validation", compute), fold))
        store.close(keep=True)
    own = pd.concat(own).sort_index()
    return CrossFit(way, dealt, _numbered(own, own.index), pd.concat(new, ignore_index=True))


def compare(fits: Sequence[CrossFit], resamples: int, seed: int) -> pd.DataFrame:
    """Scores of every way beside those of the honest one on the same rows, paired by row and by resample.

    Args:
        fits: The honest one among them.
        resamples, seed: Of the patient bootstrap.

    Returns:
        Long: ``way``; ``rows``, ``own`` (what such a study would print) or ``new patients``; ``what``, ``score``,
        ``honest`` (the honest networks on the same rows) or ``difference``, for the honest way only the first;
        ``metric, value, lo, hi, n_valid``.
    """
    honest = next(fit for fit in fits if fit.way == HONEST)
    by_image = honest.own.set_index(honest.dealt["image"])
    found = []
    for fit in fits:
        same = by_image.loc[fit.dealt["image"]].assign(image_id=fit.own["image_id"].to_numpy())
        same = same.reset_index(drop=True)
        for rows, theirs, ours in (("own", fit.own, same), ("new patients", fit.new, honest.new)):
            tables = {"score": statistics.bootstrap(theirs, resamples, seed)}
            if fit is not honest:
                tables["honest"] = statistics.bootstrap(ours, resamples, seed)
                tables["difference"] = statistics.paired_difference(theirs, ours, resamples, seed)
            found += [table.assign(way=fit.way, rows=rows, what=what) for what, table in tables.items()]
    columns = ["way", "rows", "what", "metric", "value", "lo", "hi", "n_valid"]
    return pd.concat(found, ignore_index=True)[columns]


def describe(table: pd.DataFrame, metric: str = "qwk") -> list[str]:
    """A sentence for each way but the honest one: by how much its own score is above the honest one on the same rows, and what
    is left of that on new patients. Training again, first, shows what chance alone does.

    Args:
        table: From :func:`compare`.
        metric: One of its metrics.
    """
    differences = table[(table["what"] == "difference") & (table["metric"] == metric)].set_index(
        ["way", "rows"]
    )
    lines = []
    for way in WAYS[1:]:
        told = []
        for rows in ("own", "new patients"):
            value, lo, hi = differences.loc[(way, rows), ["value", "lo", "hi"]]
            says = "higher" if lo > 0 else "lower" if hi < 0 else "not told apart from 0"
            told.append(f"{value:+.2f} [{lo:.2f}, {hi:.2f}] ({says})")
        lines.append(f"folds by {way}: {metric} on its own rows {told[0]}; on new patients {told[1]}")
    return lines


def _numbered(predictions: pd.DataFrame, number: object) -> pd.DataFrame:
    """Image identifiers with a number behind them, so that copies stay apart."""
    text = pd.Series(number, index=predictions.index).astype(str)
    return predictions.assign(image_id=predictions["image_id"] + "#" + text)
