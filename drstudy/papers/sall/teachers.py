"""Stage 1: a teacher per disease, and the soft labels that it gives (``docs/sources.md``, C3).

No soft label of a photograph comes from a network that learnt from this photograph or from another one of its patient: a photograph that
hides the teacher's disease gets the teacher of all shown labels, every other one a teacher of the other folds. A patient's photographs
belong to one collection, so the first kind of teacher never saw the patient either, but for normal photographs of that patient, which
serve both diseases; such a patient's photographs all get the out-of-fold teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from drstudy.papers.sall import labels
from drstudy.papers.sall.feed import Pooled
from drstudy.papers.sall.model import Student
from drstudy.papers.sall.params import DISEASES, Sall
from drstudy.papers.sall.training import fit, soft_columns
from drstudy.training import loop

SOURCES = ("teacher", "own", "mean", "shuffled", "random")
"""Where soft labels come from: the teacher (``own``: its out-of-fold labels of its own disease; ``mean``: its mean label of the
photographs that hide the disease, the same for all of them), a teacher that learnt permuted labels, or one of random weights."""


@dataclass
class Teachers:
    """The teachers of one seed and one fraction of the labels.

    Attributes:
        networks: Teacher of all shown labels, by disease: the single-task network of that disease.
        logits: (N, K) float32 of the training photographs by disease, mean over their views, each by a network that did not learn
            from its patient.
        out_of_fold: (N,) bool by disease: photographs whose logits come from a teacher of the other folds.
        seconds: Time of all trainings.
        fits: What the loop returned for the networks, by disease; empty for the teacher of random weights.
        learned: By disease, the patients that each network learnt from: name of the network to a set; for the guard.
    """

    networks: dict[str, Student]
    logits: dict[str, np.ndarray]
    out_of_fold: dict[str, np.ndarray]
    seconds: float
    fits: dict[str, loop.Fit] = field(default_factory=dict)
    learned: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)

    def soft(self, image_ids: pd.Series, temperature: float) -> pd.DataFrame:
        """Targets of :func:`drstudy.papers.sall.training.soft_columns` for the training photographs, at a temperature."""
        return soften(image_ids, self.logits, temperature)


def soften(image_ids: pd.Series, logits: Mapping[str, np.ndarray], temperature: float) -> pd.DataFrame:
    """Softmax of logits (N, K) by disease at a temperature, as targets with ``image_id``."""
    found = {"image_id": image_ids.to_numpy()}
    for name, values in logits.items():
        p = (torch.from_numpy(values).double() / temperature).softmax(1).numpy()
        found |= dict(zip(soft_columns(name, p.shape[1]), p.T))
    return pd.DataFrame(found)


@torch.no_grad()
def predict(network: Student, feed: Pooled, disease: str) -> np.ndarray:
    """Logits (N, K) float32 of the training photographs, mean over their views."""
    network.eval()
    count, views, width = feed.values.shape
    logits = network(feed.values.reshape(-1, width))[disease]
    return logits.reshape(count, views, -1).mean(1).numpy()


def teach(
    feed: Pooled,
    shown: pd.DataFrame,
    p: Sall,
    seed: int,
    keep: bool = False,
    source: str = "teacher",
) -> Teachers:
    """Train the teachers of one seed.

    Args:
        feed: Pooled features.
        shown: Result of :func:`drstudy.papers.sall.labels.shown`, perhaps for a fraction of the labels.
        p: Parameters of the notebook.
        seed: Number of the seed, from 0.
        keep: As of :func:`drstudy.papers.sall.training.fit`.
        source: ``teacher``; ``shuffled`` (shown training labels permuted within each disease) or ``random`` (no training).
    """
    patients = feed.train["patient_id"].astype(str).to_numpy()
    fold = labels.folds(patients, p.folds, p.seed + seed)
    made = Teachers({}, {}, {}, 0.0)
    for disease in DISEASES:
        targets = _shuffled(shown, feed, disease, p.seed + seed) if source == "shuffled" else shown
        known = targets.set_index("image_id")[disease].reindex(feed.train["image_id"]).notna().to_numpy()
        saw = np.isin(patients, patients[known])
        one = _Trainer(feed, targets, p, seed, disease, keep, source == "random")
        network, logits = one(np.zeros(len(known), bool))
        made.fits |= {disease: one.done} if one.done else {}
        if source != "random":
            for number in range(p.folds):
                here = (fold == number) & saw
                if here.any():
                    logits[here] = one(fold == number)[1][here]
        made.networks[disease], made.logits[disease] = network, logits
        made.out_of_fold[disease], made.learned[disease] = saw, one.learned
        made.seconds += one.seconds
    return made


class _Trainer:
    """Trains the teacher of one disease without some photographs; arguments as :func:`teach`."""

    def __init__(self, feed, targets, p, seed, disease, keep, untrained) -> None:
        self.feed, self.targets, self.disease, self.untrained = feed, targets, disease, untrained
        self.recipe = p.recipe("single", seed, heads=(disease,))
        self.keep = keep
        self.seconds, self.learned, self.done = 0.0, {}, None

    def __call__(self, without: np.ndarray) -> tuple[Student, np.ndarray]:
        """The network that learnt from all photographs but some, (N,) bool, and its logits of all."""
        ids = self.feed.train["image_id"]
        targets = self.targets[["image_id", *DISEASES, "domain"]].copy()
        targets.loc[targets["image_id"].isin(ids[without]), self.disease] = np.nan
        if self.untrained:
            torch_seed = self.recipe.seed + 900_000
            recipe = self.recipe
            network = Student(self.feed.width, recipe.width, recipe.outputs(), 0.0, torch_seed).eval()
        else:
            network, done = fit(self.feed, targets, self.recipe, keep=self.keep)
            self.done = self.done or done
            self.seconds += done.seconds_per_epoch * self.recipe.epochs
        known = targets.set_index("image_id")[self.disease].reindex(ids).notna().to_numpy()
        name = "all" if not without.any() else f"without fold {len(self.learned) - 1}"
        self.learned[name] = frozenset(self.feed.train.loc[known, "patient_id"].astype(str))
        return network, predict(network, self.feed, self.disease)


def _shuffled(shown: pd.DataFrame, feed: Pooled, disease: str, seed: int) -> pd.DataFrame:
    """The shown training labels of a disease in another order; validation keeps its own."""
    found = shown.copy()
    here = found["image_id"].isin(feed.train["image_id"]) & found[disease].notna()
    random = np.random.default_rng(seed)
    found.loc[here, disease] = random.permutation(found.loc[here, disease].to_numpy())
    return found
