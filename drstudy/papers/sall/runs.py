"""All trainings of the notebook: every setting and seed on the same split and number of steps, and some on fractions of the labels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from drstudy.core.names import PROBABILITIES
from drstudy.papers.sall import labels, losses
from drstudy.papers.sall.feed import Pooled
from drstudy.papers.sall.model import Student
from drstudy.papers.sall.params import DISEASES, FRACTIONED, SETTINGS, Sall
from drstudy.papers.sall.teachers import Teachers, soften, teach
from drstudy.papers.sall.training import fit, soft_columns

KEY = ["setting", "seed", "fraction", "disease"]


@dataclass
class Results:
    """What all trainings gave.

    Attributes:
        predictions: ``setting, seed, fraction, disease, image_id, patient_id, split, origin, grade, p0..p4`` of validation and test: ``grade`` is the
            true label of the disease (0 to 4), probabilities of classes that the disease lacks are 0. Photographs whose label the
            source does not know are absent. On validation only shown labels occur.
        students: (setting, seed) to the network of each disease, trained on all labels.
        teachers: Seed to the teachers of all labels; ``shuffled`` and ``random`` to those of seed 0.
        costs: ``setting, seed, fraction, seconds, parameters, epoch`` (the selected one, mean over the networks of a setting); the time of
            teachers stands in the rows ``teachers``, that of the control with shuffled labels in ``shuffled teachers``.
        history: Losses of all trainings of seed 0 on all labels, with ``setting`` and ``disease``.
    """

    predictions: pd.DataFrame
    students: dict[tuple[str, int], dict[str, Student]]
    teachers: dict[int, Teachers]
    controls: dict[str, Teachers]
    costs: pd.DataFrame
    history: pd.DataFrame


def train_all(feed: Pooled, table: pd.DataFrame, origin: pd.Series, p: Sall, keep: bool = False) -> Results:
    """Train everything.

    Args:
        feed: Pooled features.
        table, origin: Results of :func:`drstudy.papers.sall.labels.truth` and :func:`drstudy.papers.sall.labels.assign`.
        p, keep: As of :func:`drstudy.papers.sall.teachers.teach`.
    """
    grid = [(seed, share) for share in sorted(p.fractions, reverse=True) for seed in range(p.seeds)]
    results = Results(pd.DataFrame(), {}, {}, {}, pd.DataFrame(), pd.DataFrame())
    frames, costs, histories, began = [], [], [], time.perf_counter()
    for place, (seed, share) in enumerate(grid, 1):
        one = _Labels(feed, table, origin, p, seed, share, keep)
        costs.append({"setting": "teachers", "seconds": one.teachers.seconds, "parameters": np.nan} | one.key)
        if share == 1:
            results.teachers[seed] = one.teachers
        for setting in p.settings if share == 1 else [name for name in p.settings if name in FRACTIONED]:
            networks, cost, history = one.train(setting)
            costs.append({"setting": setting} | cost | one.key)
            found = predictions(feed, table, origin, one.shown, networks, one.temperature(setting))
            frames.append(found.assign(setting=setting, **one.key))
            if share == 1:
                results.students[setting, seed] = networks
                histories += [history.assign(setting=setting)] if seed == 0 else []
        if "shuffled" in one.controls:
            spent = one.controls["shuffled"].seconds
            costs.append({"setting": "shuffled teachers", "seconds": spent, "parameters": np.nan} | one.key)
        if share == 1 and seed == 0:
            results.controls = dict(one.controls)
        print(
            f"seed {seed}, {share:.0%} of the labels: {place}/{len(grid)}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    found = pd.concat(frames, ignore_index=True)
    results.predictions = found[[*KEY, *(name for name in found if name not in KEY)]]
    results.costs = pd.DataFrame(costs)[["setting", "seed", "fraction", "seconds", "parameters", "epoch"]]
    results.history = pd.concat(histories, ignore_index=True)
    return results


class _Labels:
    """One seed and one fraction of the labels: teachers, soft labels, and the trainings on them."""

    def __init__(self, feed, table, origin, p, seed, share, keep) -> None:
        self.feed, self.p, self.seed, self.keep = feed, p, seed, keep
        self.key = {"seed": seed, "fraction": share}
        kept = labels.fraction(table, origin, share, p.seed + seed)
        self.truth, self.kept = table, kept
        shown = labels.shown(table, origin)
        shown.loc[~kept, [*DISEASES, "domain"]] = np.nan
        self.shown = shown
        self.teachers = teach(feed, shown, p, seed, keep)
        self.controls: dict[str, Teachers] = {}
        self.ids = feed.train["image_id"]
        self.seen = shown.set_index("image_id").loc[self.ids, list(DISEASES)]
        self.used = self.seen.notna().any(axis=1).to_numpy()  # (N,) training photographs that are learnt from

    def temperature(self, setting: str) -> float:
        return self.p.recipe(setting, self.seed).own_temperature

    def train(self, setting: str) -> tuple[dict[str, Student], dict[str, Any], pd.DataFrame]:
        """Networks by disease; seconds, parameters and selected epoch; and the history."""
        if setting == "single":
            fits = [(name, self.teachers.networks[name], self.teachers.fits[name]) for name in DISEASES]
            networks = dict(self.teachers.networks)
        else:
            recipe, taught = self.recipe(setting), self.teachers.networks
            student, done = fit(self.feed, self.targets(setting), recipe, taught, self.keep)
            networks = dict.fromkeys(DISEASES, student)
            fits = [(" + ".join(DISEASES), student, done)]
        seconds = sum(done.seconds_per_epoch * self.p.epochs for _, _, done in fits)
        history = pd.concat([done.history.assign(disease=name) for name, _, done in fits])
        different = {id(network): network for network in networks.values()}.values()
        count = sum(q.numel() for network in different for q in network.parameters())
        epoch = float(np.mean([done.best_epoch for _, _, done in fits]))
        return networks, {"seconds": seconds, "parameters": count, "epoch": epoch}, history

    def recipe(self, setting: str):
        """The recipe of a setting of two heads, with the label smoothing that has the teachers' entropy where it is wanted."""
        changes = {}
        if "smoothings" in SETTINGS[setting].changes:
            changes["smoothings"] = tuple(
                losses.smoothing_of(self._entropy(name), count)
                for name, count in zip(DISEASES, self.p.classes)
            )
        return self.p.recipe(setting, self.seed, **changes)

    def _entropy(self, disease: str) -> float:
        logits = torch.from_numpy(self.teachers.logits[disease][self._hidden(disease)]).double()
        return losses.entropy(logits.softmax(1))

    def _hidden(self, disease: str) -> np.ndarray:
        """(N,) bool: photographs that are learnt from and do not show the disease's label."""
        return self.used & self.seen[disease].isna().to_numpy()

    def targets(self, setting: str) -> pd.DataFrame:
        """Targets of a setting: shown labels, and soft labels for the photographs that are learnt from."""
        source = SETTINGS[setting].soft
        targets = self.shown
        if setting == "oracle":
            learning = (
                self.kept
                & (self.truth["split"] == "train").to_numpy()
                & self.shown[list(DISEASES)].notna().any(axis=1).to_numpy()
            )
            targets = targets.copy()
            targets.loc[learning, list(DISEASES)] = self.truth.loc[learning, list(DISEASES)].to_numpy()
        if not source:
            return targets
        soft = soften(self.ids, self._logits(source), self.p.temperature)
        if source == "mean":
            soft = self._means(soft)
        soft.loc[~self.used, soft.columns.drop("image_id")] = np.nan
        return targets.merge(soft, on="image_id", how="left")

    def _logits(self, source: str) -> dict[str, np.ndarray]:
        if source not in ("shuffled", "random"):
            return self.teachers.logits
        if source not in self.controls:
            self.controls[source] = teach(self.feed, self.shown, self.p, self.seed, self.keep, source)
        return self.controls[source].logits

    def _means(self, soft: pd.DataFrame) -> pd.DataFrame:
        """The mean soft label of the photographs that hide the disease, for all photographs."""
        soft = soft.copy()
        for name, count in zip(DISEASES, self.p.classes):
            columns = soft_columns(name, count)
            soft[columns] = soft.loc[self._hidden(name), columns].mean().to_numpy()
        return soft


@torch.no_grad()
def predictions(
    feed: Pooled,
    table: pd.DataFrame,
    origin: pd.Series,
    shown: pd.DataFrame,
    networks: dict[str, Student],
    temperature: float,
) -> pd.DataFrame:
    """Predictions of validation (shown labels only) and test (all that the source knows), one row per disease and photograph.

    Args:
        feed: Pooled features.
        table, origin, shown: Results of :func:`drstudy.papers.sall.labels.truth`, :func:`drstudy.papers.sall.labels.assign` and
            :func:`drstudy.papers.sall.labels.shown`.
        networks: Network by disease.
        temperature: The logits are divided by it, as in training.
    """
    clean = feed.clean[["image_id", "patient_id", "split"]].reset_index(drop=True)
    of = pd.Series(origin.to_numpy(), index=table["image_id"])
    clean = clean.assign(origin=clean["image_id"].map(of))
    known = table.set_index("image_id").loc[clean["image_id"], list(DISEASES)].reset_index(drop=True)
    seen = shown.set_index("image_id").loc[clean["image_id"], list(DISEASES)].reset_index(drop=True)
    found = []
    for disease, network in networks.items():
        p = (network(feed.still)[disease].double() / temperature).softmax(1).numpy()
        padded = np.zeros((len(p), len(PROBABILITIES)))
        padded[:, : p.shape[1]] = p
        grade = known[disease].where(clean["split"] == "test", seen[disease])
        frame = clean.assign(disease=disease, grade=grade, **dict(zip(PROBABILITIES, padded.T)))
        found.append(frame.dropna(subset="grade").astype({"grade": int}))
    return pd.concat(found, ignore_index=True)
