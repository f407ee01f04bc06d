"""Tables of notebook 15 about the trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import GRADES
from drstudy.papers.gan.params import SCRATCH, TRANSFER

if TYPE_CHECKING:
    from drstudy.data.dataset import Dataset
    from drstudy.papers.gan.runs import Trained


def photographs(data: Dataset) -> pd.DataFrame:
    """Photographs of each grade in each split: one row per grade, one column per split."""
    counts = data.table.groupby(["grade", "split"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=list(GRADES), columns=["train", "validation", "test"], fill_value=0)
    return counts.rename_axis(columns=None).reset_index()


def history(trained: Mapping[str, Trained]) -> pd.DataFrame:
    """Means over each epoch: one row per training and epoch: ``training, epoch``, the losses, scores and validation measures."""
    parts = []
    for name, one in trained.items():
        means = one.history.drop(columns="step").groupby("epoch", as_index=False).mean()
        parts.append(means.assign(training=name, steps=means["epoch"] * one.recipe.steps))
    whole = pd.concat(parts, ignore_index=True)
    return whole[["training", "epoch", "steps", *whole.columns.drop(["training", "epoch", "steps"])]]


def trainings(trained: Mapping[str, Trained]) -> pd.DataFrame:
    """One row per GAN: what it is, how long it learnt, and what became of it. No times stand here.

    ``energy`` is the energy distance to held-out photographs (lower is better), ``diversity`` that of the pictures over that of held-out photographs
    (1 is as diverse), both on pictures of 16 x 16 pixels at the end.
    """
    rows = []
    for name, one in trained.items():
        p, final = one.recipe, one.history.dropna(subset="val_energy").iloc[-1]
        rows.append(
            {
                "training": name,
                "loss": p.loss,
                "grades": "conditional" if p.grades else "unconditional",
                "starts from": "pretraining" if p.start else "random weights",
                "frozen blocks": p.frozen_blocks,
                "generator steps": p.epochs * p.steps,
                "critic steps": p.epochs * p.steps * p.critic_steps,
                "photographs shown": p.epochs * p.steps * p.critic_steps * p.batch_size,
                "generator parameters": one.parameters[0],
                "critic parameters": one.parameters[1],
                "energy": final["val_energy"],
                "diversity": final["val_diversity"],
                "status": one.health.status,
                "why": one.health.why,
            }
        )
    return pd.DataFrame(rows)


def display(found: pd.DataFrame) -> pd.DataFrame:
    """For readers: the columns of :func:`trainings` that differ, with rounded numbers."""
    shown = found[["training", "loss", "grades", "starts from", "generator steps", "critic steps"]]
    numbers = {name: found[name].map("{:.2f}".format) for name in ("energy", "diversity")}
    return shown.assign(**numbers, status=found["status"])


def timings(trained: Mapping[str, Trained]) -> pd.DataFrame:
    """One row per GAN: seconds per epoch, steps of the generator per second, photographs per second that the critic saw."""
    rows = {}
    for name, one in trained.items():
        p = one.recipe
        rows[name] = {
            "seconds per epoch": one.seconds,
            "generator steps per second": p.steps / one.seconds,
            "photographs per second": p.steps * p.critic_steps * p.batch_size / one.seconds,
        }
    return pd.DataFrame(rows).T.rename_axis("training")


def transfer_curve(found: pd.DataFrame) -> pd.DataFrame:
    """Energy distance with and without transfer at the same steps of the conditional GANs.

    Args:
        found: Result of :func:`history`.

    Returns:
        One row per quarter of the training: ``steps, with transfer, without transfer``; empty if one of the two was left out.
    """
    columns = ["steps", "with transfer", "without transfer"]
    both = found.pivot_table(index="steps", columns="training", values="val_energy")
    if not {TRANSFER, SCRATCH} <= set(both.columns):
        return pd.DataFrame(columns=columns)
    both = both[[TRANSFER, SCRATCH]].dropna().reset_index()
    places = np.unique(np.ceil(np.array([0.25, 0.5, 0.75, 1]) * len(both)).astype(int) - 1)
    return both.iloc[places].set_axis(columns, axis=1).reset_index(drop=True)


def as_metrics(found: pd.DataFrame) -> dict[str, float | str]:
    """Flat metrics of :func:`trainings`: ``energy_<training>``, ``diversity_<training>`` and ``status_<training>``."""
    metrics: dict[str, float | str] = {}
    for row in found.to_dict("records"):
        for measure in ("energy", "diversity", "status"):
            metrics[f"{measure}_{row['training'].replace(' ', '_')}"] = row[measure]
    return metrics
