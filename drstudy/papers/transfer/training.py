"""Training of the main study: notebook 03 in several processes, folds with and without a leak, shuffled labels.

For the effect of a leak, the same images are divided into folds by patient, by image, and by row after oversampling. Every image
of the training split is tested once, by a network that was trained on the other folds. The ways differ only in how the folds
are dealt:

- ``patient``: whole patients (joined where they share a duplicate); rare grades are oversampled inside training.
- ``patient, again``: the same with other folds and another seed. It shows the variation from retraining alone.
- ``image``: image by image, so the fellow eye is often in training; oversampled inside training.
- ``row``: rows are drawn first, rare grades more often, and then dealt one by one, so copies of a test row are in
  training. This is oversampling before splitting.

Results on rows of the leaking ways are compared with the predictions of the network without a leak **on the same rows**
(:mod:`drstudy.papers.transfer.leaks`). All networks also grade the patients of the validation split, which none of them
was trained on. Nothing here reads the test split.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from drstudy.core import devices, paths, records
from drstudy.core.devices import Compute
from drstudy.data import splits
from drstudy.data.dataset import Dataset, load
from drstudy.models.nets import GradingNet
from drstudy.papers.transfer.params import FineTuning
from drstudy.training import features, loop, networks, prediction, sampling
from drstudy.training.grading import Grading
from drstudy.training.recipe import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

HONEST, AGAIN, BY_IMAGE, BY_ROW = "patient", "patient, again", "image", "row"
WAYS = (HONEST, AGAIN, BY_IMAGE, BY_ROW)
OVERSAMPLER = "inverse"
"""Sampler that balances the grades, both for rows drawn before the split and for draws inside training."""

SHUFFLED_EPOCHS = 10
"""Most epochs of a network that is trained on shuffled labels."""


def task(given: dict[str, Any], team: Accelerator) -> Grading:
    """The task of notebook 03 in one of several processes (:mod:`drstudy.training.launch`).

    Args:
        given: UPPER_CASE parameters of the notebook.
        team: The processes; its first one writes the feature store.
    """
    p = FineTuning.check(given)
    device = "cpu" if team.device.type == "cpu" else str(team.device)
    compute = devices.setup(device, p.precision, p.threads, p.seed)
    data = load(records.load(paths.resolve(p.audit)))
    net = networks.build(p, data, compute)
    recipe = networks.recipe_for(net, p)
    store = features.open_features(net, data, recipe, compute)
    with team.main_process_first():
        store.prepare()
    return Grading(net, store, recipe, compute)


def deal(
    images: pd.DataFrame, way: str, folds: int, seed: int, duplicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Deal images into folds, stratified by grade.

    **All but the two patient ways leak, on purpose.** No other module deals like this, and
    :func:`drstudy.data.dataset.load` refuses a split that does.

    Args:
        images: ``image_id, patient_id, grade``, one row per image.
        way: One of :data:`WAYS`.
        folds: 2 or more.
        seed: Seed of the draw and the deal.
        duplicates: Pairs ``image_id_a, image_id_b`` that ``patient`` keeps on one side.

    Returns:
        One row per dealt row: ``image`` (its place in ``images``), ``image_id, patient_id, grade, fold``. As many rows as
        images; each image once, except for ``row``, where rare grades come several times and common ones not always.

    Raises:
        ValueError: If the way is unknown, or there are too few images for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if way not in WAYS:
        raise ValueError(f"There is no way {way!r} to make folds; there are {', '.join(WAYS)}.")
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
    try:
        parts = list(folder.split(rows, grades[rows], groups))
    except ValueError:
        patients = images["patient_id"].nunique()
        raise ValueError(
            f"{len(images)} images of {patients} patients cannot be divided into {folds} folds: lower LEAK_FOLDS, or use more images."
        ) from None
    for fold, (_, held) in enumerate(parts):
        dealt.loc[held, "fold"] = fold
    return dealt


@dataclass(frozen=True)
class CrossFit:
    """Predictions of the networks of one way of making folds.

    Attributes:
        way: One of :data:`WAYS`.
        dealt: Result of :func:`deal`.
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
    """Train one network per fold on the rows of the other folds, and predict the rows of the fold.

    Args:
        way: As given to :func:`deal`.
        dealt: Its result, with the images of ``data.part("train")``.
        data: Result of :meth:`drstudy.data.dataset.Dataset.without_test`.
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
            task = Grading(net, features.Subset(store, trained), recipe_here, compute)
            loop.fit(task, keep=keep)
        answers = prediction.table(net, store, "test", compute).iloc[held["image"]].set_index(held.index)
        own.append(answers)
        new.append(_numbered(prediction.table(net, store, "validation", compute), fold))
        store.close(keep=True)
    own = pd.concat(own).sort_index()
    return CrossFit(way, dealt, _numbered(own, own.index), pd.concat(new, ignore_index=True))


def _numbered(predictions: pd.DataFrame, number: object) -> pd.DataFrame:
    """Image identifiers with a number behind them, so that copies stay apart."""
    text = pd.Series(number, index=predictions.index).astype(str)
    return predictions.assign(image_id=predictions["image_id"] + "#" + text)


def shuffle_labels(data: Dataset, seed: int) -> Dataset:
    """The same images with the grades of the training split dealt anew, so that a network trained on it has nothing to learn.

    Validation and test grades stay true. Maps of such a network that agree with those of the real one (:func:`drstudy.explain.checks.sanity.agreement`) owe
    nothing to the grades.

    Args:
        data: Not changed.
        seed: Seed of the shuffle.
    """
    table = data.table.copy()
    train = table.index[table["split"] == "train"]
    dealt = np.random.default_rng(seed).permutation(len(train))
    table.loc[train, "grade"] = table.loc[train, "grade"].to_numpy()[dealt]
    return replace(data, table=table)


def shuffled(recipe: Training, compute: Compute, seed: int) -> GradingNet:
    """A network fine-tuned by the recipe of another, on the same eyes with their training grades dealt anew.

    One view per image and :data:`SHUFFLED_EPOCHS` epochs at most: it is trained for its maps and not for its score.

    Args:
        recipe: Recipe of the network that is explained, with the photographs (``audit``) on which it was trained.
        compute: Device; precision of the training.
        seed: Seed of the shuffle.
    """
    made = recipe.model_copy(update={"frozen_bn": "eval"})
    data = shuffle_labels(load(records.load(made.audit)), seed)
    net = networks.build(made, data, compute)
    made = networks.recipe_for(net, made)
    short = made.model_copy(
        update={
            "views": 1,
            "epochs": min(made.epochs, SHUFFLED_EPOCHS),
            "select_by": "last",
            "feature_store": True,
        }
    )
    store = features.open_features(net, data, short, compute)
    try:
        loop.fit(Grading(net, store, short, compute), keep=True)
    finally:
        store.close(keep=False)
    return net.eval()


def other_seeds(folders: Sequence[str]) -> dict[str, GradingNet]:
    """Networks of other seeds by name, ``seed 1``, from result folders of notebook 03."""
    found = [records.load(folder) for folder in folders]
    return {f"seed {record.params['SEED']}": prediction.load(record) for record in found}
