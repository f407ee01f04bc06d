"""Value of the trained GANs' pictures for a classifier: the sets that are compared, and the numbers that the ledger looks up."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from drstudy.core.devices import Compute
from drstudy.core.names import GRADES
from drstudy.core.params import Computing
from drstudy.evaluation import metrics
from drstudy.models.nets import GradingNet
from drstudy.papers.gan import agreement, arm_tables, arms, pictures, runs
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.heads import HeadRecipe
from drstudy.papers.gan.params import PRETRAINING, SCRATCH, TRANSFER, Gan
from drstudy.papers.gan.pictures import Pictures
from drstudy.papers.gan.runs import Trained
from drstudy.show import intervals

BLURRED = "blurred, 2 px"
"""Set of :func:`drstudy.papers.gan.quality.sets` to which the ledger compares generated pictures."""

KERNEL = "kd_lite0"
"""Metric of the ledger."""

GENERATED = tuple(arm for arm, kind in arms.KINDS.items() if kind == "generated")
"""Arms with generated pictures."""

FOLDS = 5
"""Folds of the classifier that tells generated from real pictures."""

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
        mirrored = one.recipe.sides == "left"
        found[name] = pictures.generated(runs.generate(one.generator, grades, seed, mirrored), grades)
    return found


def head_recipe(p: Gan) -> HeadRecipe:
    """The recipe of the classifiers of all arms."""
    own = {*Computing.model_fields, "audit"} - {"variant"}
    return HeadRecipe(**p.model_dump(include=own), steps=p.head_steps, learning_rate=p.head_rate)


def one_per_grade(some: Pictures) -> np.ndarray:
    """Places of the first picture of each grade that there is."""
    return np.array(
        [np.flatnonzero(some.grades == grade)[0] for grade in GRADES if (some.grades == grade).any()]
    )


def predicted(net: GradingNet, some: Pictures, compute: Compute) -> np.ndarray:
    """Grade (N,) that the grading network predicts."""
    return metrics.arrays(agreement.graded(net, some, compute))[2]


def told_apart(
    train: Pictures, held_out: Pictures, made: Pictures, encoder: Encoder, resamples: int, seed: int
) -> pd.DataFrame:
    """AUC of a classifier that tells generated pictures from held-out photographs, and of the same for training photographs (the control).

    Args:
        train, held_out: Real photographs at the generator's size.
        made: Generated pictures; as many of each grade are taken as ``held_out`` has.
        encoder: Feature space.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of folds and draws.

    Returns:
        Two rows: ``pictures, value, lo, hi, n``.
    """
    features, rows = encoder.features(held_out), []
    for name, some in (("generated", made), ("real, other patients (control)", train)):
        random = np.random.default_rng(seed)
        few = some.take(pictures.by_counts(some.grades, held_out.counts, random))
        patients = (held_out.patients, few.patients)
        found = agreement.real_or_generated(features, encoder.features(few), patients, FOLDS, resamples, seed)
        rows.append(
            {"pictures": name} | {key: found[key] for key in ("value", "lo", "hi")} | {"n": found["pictures"]}
        )
    return pd.DataFrame(rows)


def display_taught(taught: pd.DataFrame) -> pd.DataFrame:
    """For readers: one row per training set of :func:`drstudy.papers.gan.agreement.taught_scores`, one column per metric, with intervals."""
    shown = taught[taught["metric"].isin(("qwk", "macro_auc", arm_tables.PRIMARY))]
    texts = [intervals.text(*row) for row in shown[["value", "lo", "hi"]].to_numpy()]
    wide = shown.assign(text=texts).pivot(index="taught_by", columns="metric", values="text")
    wide = wide.reindex(list(agreement.TAUGHT_BY)).rename(
        index=agreement.TAUGHT_BY, columns=arm_tables.METRICS
    )
    return wide.rename_axis(index="taught by", columns=None)


def as_metrics(claimed: pd.DataFrame, told: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Flat metrics of the run: of the ledger's rows, of the classifier that separates pictures, and the primary outcome of each arm."""
    found = {}
    named = [(re.sub(r"[^a-z0-9]+", "_", row["quantity"].lower()), row) for row in claimed.to_dict("records")]
    named.append(("auc_real_or_generated", told.iloc[0]))
    primary = scores[scores["metric"] == arm_tables.PRIMARY]
    named += [(f"{arm_tables.PRIMARY}_{row['arm']}", row) for row in primary.to_dict("records")]
    for name, row in named:
        found |= {name: row["value"], f"{name}_lo": row["lo"], f"{name}_hi": row["hi"]}
    return found


def claims(
    distances: pd.DataFrame, agreed: pd.DataFrame, gaps: pd.DataFrame, fair: pd.DataFrame, used: str
) -> pd.DataFrame:
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
    rows += [
        ("QWK of requested and predicted grade", *row) for row in kappa[["value", "lo", "hi"]].to_numpy()
    ]
    for found, name in ((gaps, "none"), (fair, "duplicated")):
        rare = found[(found["arm"] == "gan_100") & (found["metric"] == arm_tables.PRIMARY)]
        quantity = f"recall of grades 3 and 4, generated less {name}"
        rows += [(quantity, *row) for row in rare[["value", "lo", "hi"]].to_numpy()]
    return pd.DataFrame(rows, columns=["quantity", "value", "lo", "hi"])
