"""Networks that the main study trains beside its main ones: in folds, honest and leaking, and on shuffled labels.

For the effect of a leak, the same images are dealt into folds honestly, by image, and by row after oversampling. Every image
of the training split is tested once, by a network that was trained on the other folds. The ways differ only in how the folds
are dealt:

- ``patient``: whole patients (joined where they share a duplicate); rare grades are oversampled inside training.
- ``patient, again``: the same with other folds and another seed. It shows the variation from retraining alone.
- ``image``: image by image, so the fellow eye is often in training; oversampled inside training.
- ``row``: rows are drawn first, rare grades more often, and then dealt one by one, so copies of a test row are in
  training. This is oversampling before splitting.

Results on rows of the leaking ways are compared with the honest network's answers **on the same rows**
(:mod:`drstudy.papers.transfer.leaks`). All networks also grade the patients of the validation split, which none of them
was trained on. Nothing here reads the test split.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drstudy.core import records
from drstudy.core.devices import Compute
from drstudy.core.params import Training
from drstudy.data import splits
from drstudy.data.dataset import Dataset, load
from drstudy.models.nets import GradingNet
from drstudy.training import features, loop, prediction, sampling

HONEST, AGAIN, BY_IMAGE, BY_ROW = "patient", "patient, again", "image", "row"
WAYS = (HONEST, AGAIN, BY_IMAGE, BY_ROW)
OVERSAMPLER = "inverse"
"""Sampler that balances the grades, both for rows drawn before the split and for draws inside training."""

SHUFFLED_EPOCHS = 10
"""Most epochs of a network that is trained on shuffled labels."""


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


@dataclass(frozen=True)
class CrossFit:
    """What the networks of one way of dealing answer.

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


class _Rows(features.Features):
    """Features of which only the given training rows are drawn, some more than once."""

    def __init__(self, base: features.Features, rows: np.ndarray) -> None:
        self.base, self.rows = base, torch.tensor(rows)
        self.data, self.clean = base.data, base.clean
        self.train = base.train.iloc[rows].reset_index(drop=True)

    def draws(self, positions: Tensor, views: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return self.base.draws(self.rows[positions], views)

    def unaugmented(self, positions: np.ndarray) -> Iterator[Tensor]:
        return self.base.unaugmented(positions)


def cross_fit(way: str, dealt: pd.DataFrame, data: Dataset, recipe: Training, compute: Compute) -> CrossFit:
    """Train one network a fold, on the rows of the others, and let it answer.

    Args:
        way: As given to :func:`deal`.
        dealt: Its result, with the images of ``data.part("train")``.
        data: Result of :meth:`drstudy.data.dataset.Dataset.without_test`.
        recipe: Its sampler gives way to :data:`OVERSAMPLER`, or to none where the rows are oversampled already.
        compute: Device and precision.
    """
    sampler, seed = ("none" if way == BY_ROW else OVERSAMPLER), recipe.seed + (way == AGAIN)
    recipe_here = recipe.model_copy(update={"sampler": sampler, "seed": seed})
    own, new = [], []
    for fold, held in dealt.groupby("fold"):
        net = loop.build(recipe_here, data, compute)
        store = features.open_features(net, data, recipe, compute)  # its seed: the same views for all ways
        trained = dealt.loc[dealt["fold"] != fold, "image"].to_numpy()
        with contextlib.redirect_stdout(io.StringIO()):  # its lines are about epochs; here folds count
            loop.fit(net, _Rows(store, trained), recipe_here, compute)
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


def shuffled(model: records.Record, compute: Compute, seed: int) -> GradingNet:
    """A network fine-tuned by the recipe of another, on the same eyes with their training grades dealt anew.

    One view an image and :data:`SHUFFLED_EPOCHS` epochs at most: it is trained for its maps and not for its score.

    Args:
        model: Record of notebook 03.
        compute: Device; precision of the training.
        seed: Seed of the shuffle.
    """
    made = model.parameters().model_copy(update={"frozen_bn": "eval"})
    data = shuffle_labels(load(records.load(made.audit)), seed)
    net = loop.build(made, data, compute)
    made = loop.recipe_for(net, made)
    recipe = made.model_copy(
        update={
            "views": 1,
            "epochs": min(made.epochs, SHUFFLED_EPOCHS),
            "select_by": "last",
            "feature_store": True,
        }
    )
    store = features.open_features(net, data, recipe, compute)
    try:
        loop.fit(net, store, recipe, compute)
    finally:
        store.close(keep=False)
    return net.eval()


def networks(folders: Sequence[str]) -> dict[str, GradingNet]:
    """Networks of other seeds by name, ``seed 1``, from result folders of notebook 03."""
    found = [records.load(folder) for folder in folders]
    return {f"seed {record.params['SEED']}": prediction.load(record) for record in found}
