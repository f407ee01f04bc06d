"""Training for the number of augmented views per image: K fixed views against a fresh one at every draw.

The feature store makes K views of each training image once, and an epoch draws among them. The paper augments afresh each
time. Here networks are trained both ways, with everything else the same: weights, head, draws of the sampler, and order of the
batches. Only the view of a drawn image that the network sees differs. Everything is measured on the validation split, because
a default is chosen by it. The test images are not read.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from drstudy.evaluation import metrics

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.data.dataset import Dataset
    from drstudy.papers.views.params import ViewsStudy

FRESH = 0
"""As ``VIEWS`` writes it: a new view at every draw."""


def label(views: int) -> str:
    """For figures and tables: ``4``, or ``fresh``."""
    return "fresh" if views == FRESH else str(views)


@dataclass(frozen=True)
class Trained:
    """What :func:`train` gives.

    Attributes:
        predictions: Number of views to predictions on validation after the last epoch, a table a seed.
        seconds: one row per seed and number of views: ``seed, views, trunk, prepare, epoch``. ``trunk`` is the time inside the
            frozen trunk and ``prepare`` that of the whole store, in a run of notebook 03 (training, validation and test images,
            each pass taken as long as the mean one here); of fresh views, ``trunk`` is of all epochs and ``prepare`` 0. ``epoch`` is the
            median of an epoch, validation included.
    """

    predictions: dict[int, list[pd.DataFrame]]
    seconds: pd.DataFrame


def train(p: ViewsStudy, data: Dataset, compute: Compute, keep: bool = False) -> Trained:
    """Train ``p.repeats`` networks with each number of views, seeds one apart, the same ones for each.

    One store of the largest number is made a seed; smaller numbers are its first views, which is what a store of their own would
    hold.

    Args:
        p: The recipe, of :func:`drstudy.training.networks.recipe_for`, and what is compared.
        data: All splits; the test images are counted, for the costs, and not read.
        compute: Device and precision.
        keep: See :func:`drstudy.training.loop.fit`.
    """
    from drstudy.training import features, grading, loop, networks, prediction

    sizes = {split: len(data.part(split)) for split in ("train", "validation", "test")}
    data = data.without_test()
    predictions: dict[int, list[pd.DataFrame]] = {views: [] for views in p.views_compared}
    rows = []
    for seed in range(p.seed, p.seed + p.repeats):
        most = p.model_copy(update={"seed": seed, "views": max(p.views_compared)})
        store = features.open_features(networks.build(most, data, compute), data, most, compute)
        made = len(store.train) * most.views + len(store.clean)
        for views in p.views_compared:
            recipe = most.model_copy(update={"views": views, "feature_store": views != FRESH})
            net = networks.build(recipe, data, compute)
            source = features.open_features(net, data, recipe, compute) if views == FRESH else store
            with contextlib.redirect_stdout(io.StringIO()):  # its lines are about epochs; here networks count
                fitted = loop.fit(grading.Grading(net, source, recipe, compute), keep=keep)
            trunk, prepare = fitted.seconds_trunk, fitted.seconds_prepare
            if views != FRESH:
                share = (sizes["train"] * views + sizes["validation"] + sizes["test"]) / made
                trunk, prepare = share * trunk, share * prepare
            found = prediction.table(net, source, "validation", compute)
            predictions[views].append(found)
            rows.append(
                {
                    "seed": seed,
                    "views": views,
                    "trunk": trunk,
                    "prepare": prepare,
                    "epoch": fitted.seconds_per_epoch,
                }
            )
            score = grading.qwk(found["grade"].to_numpy(int), metrics.arrays(found)[2])
            print(f"seed {seed}, views {label(views)}: validation QWK {score:.3f}", flush=True)
        store.close(keep=False)
    return Trained(predictions, pd.DataFrame(rows))
