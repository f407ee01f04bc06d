"""What the pictures of the trained GANs are worth: the sets that are compared, and the numbers that the ledger looks up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.core.names import GRADES
from drstudy.core.params import Computing
from drstudy.papers.gan import arm_tables, arms, pictures, runs
from drstudy.papers.gan.heads import HeadRecipe
from drstudy.papers.gan.params import PRETRAINING, SCRATCH, TRANSFER, Gan
from drstudy.papers.gan.pictures import Pictures
from drstudy.papers.gan.runs import Trained

BLURRED = "blurred, 2 px"
"""Set of :func:`drstudy.papers.gan.quality.sets` to which the ledger compares generated pictures."""

KERNEL = "kd_lite0"
"""Metric of the ledger."""

AGAIN = 2
"""For each picture that the largest arm needs, so many are generated, of which the filter keeps the likelier ones."""


def generated(trained: Mapping[str, Trained], train: Pictures, seed: int) -> dict[str, Pictures]:
    """Pictures of all conditional GANs.

    Args:
        trained: Result of :func:`drstudy.papers.gan.runs.train_all`.
        train: Real training photographs.
        seed: Seed of the noise; another one than that of the pictures over the training.

    Returns:
        By training: as many of each grade as ``train`` has; of :func:`drstudy.papers.gan.runs.chosen` also twice as many as the arms need.
    """
    found, used = {}, runs.chosen(dict(trained))
    for name, one in trained.items():
        if name == PRETRAINING:
            continue
        counts = train.counts
        if name == used:
            counts = np.maximum(counts, AGAIN * arms.needed(train.counts))
        grades = np.repeat(np.array(GRADES, dtype=np.int64), counts)
        found[name] = pictures.generated(runs.generate(one.generator, grades, seed), grades)
    return found


def head_recipe(p: Gan) -> HeadRecipe:
    """The recipe of the classifiers of all arms."""
    own = {*Computing.model_fields, "audit"} - {"variant"}
    return HeadRecipe(**p.model_dump(include=own), steps=p.head_steps, learning_rate=p.head_rate)


def claims(distances: pd.DataFrame, agreed: pd.DataFrame, gaps: pd.DataFrame, fair: pd.DataFrame, used: str) -> pd.DataFrame:
    """The numbers of the ledger: one row each, ``quantity, value, lo, hi``; a row is left out where there is nothing to compare.

    Args:
        distances: Result of :func:`drstudy.papers.gan.quality.table`. The limits of a difference of two of its distances are the least and the greatest that
            their ranges over draws allow.
        agreed: Result of :func:`drstudy.papers.gan.agreement.by_grade`, with the set ``used``.
        gaps, fair: Results of :func:`drstudy.papers.gan.arm_tables.differences` to no oversampling, and to duplicated photographs of the same size.
        used: Name of the GAN whose pictures are used.
    """
    far = distances[distances["metric"] == KERNEL].set_index("set")
    rows = []

    def less(quantity: str, one: str, other: str) -> None:
        if {one, other} <= set(far.index):
            a, b = far.loc[one], far.loc[other]
            ends = (a["lo"] - b["hi"], a["hi"] - b["lo"])
            rows.append((quantity, a["value"] - b["value"], *ends))

    less("kernel distance, generated less blurred", used, BLURRED)
    less("kernel distance, no transfer less transfer", SCRATCH, TRANSFER)
    kappa = agreed[(agreed["set"] == used) & (agreed["grade"] == "all")]
    rows += [("QWK of requested and predicted grade", *row) for row in kappa[["value", "lo", "hi"]].to_numpy()]
    for found, name in ((gaps, "none"), (fair, "duplicated")):
        rare = found[(found["arm"] == "gan_100") & (found["metric"] == arm_tables.PRIMARY)]
        quantity = f"recall of grades 3 and 4, generated less {name}"
        rows += [(quantity, *row) for row in rare[["value", "lo", "hi"]].to_numpy()]
    return pd.DataFrame(rows, columns=["quantity", "value", "lo", "hi"])
