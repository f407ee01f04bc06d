"""Do generated photographs help? Training sets that differ only in how the rare grades are treated.

All arms train the same head on features of the same encoder, for the same number of steps, with the same seeds, and are tested on the same real
photographs (``docs/sources.md``, G4). The balanced arms add pictures until every grade has as many as the most frequent one, so they differ in where the added
pictures come from and in nothing else.

Resolution is a confound: generated pictures are smaller than real photographs, so a head could learn "blurred means rare". The arm
``duplicated_small`` adds the duplicated real photographs after they were scaled down to the generator's size. It is the fair comparison
for the arms with generated pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from drstudy.core.devices import Compute
from drstudy.core.names import N_GRADES
from drstudy.data.dataset import Dataset
from drstudy.papers.gan import heads, pictures
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.heads import HeadRecipe, Known
from drstudy.papers.gan.pictures import Pictures
from drstudy.training import prediction, transforms

SHARES = (0.25, 0.5, 1.0)
"""Shares of the missing pictures that are added from the generator."""

NONE = "none"
"""The arm to which all others are compared."""

FAIR = "duplicated_small"
"""The arm to which arms with generated pictures are compared as well."""

KINDS: Mapping[str, str] = {
    NONE: "reference",
    "paper": "sampler",
    "inverse": "sampler",
    "duplicated": "real",
    FAIR: "real",
    "augmented": "real",
    "gan_25": "generated",
    "gan_50": "generated",
    "gan_100": "generated",
    "gan_filtered": "generated",
    "gan_shuffled": "control",
}
"""Arm to its kind, in the order of tables and figures."""

TITLES: Mapping[str, str] = {
    NONE: "no oversampling",
    "paper": "the paper's sampler",
    "inverse": "inverse sampler",
    "duplicated": "real, duplicated",
    FAIR: "real, duplicated at the generator's size",
    "augmented": "real, augmented",
    "gan_25": "generated, 25 %",
    "gan_50": "generated, 50 %",
    "gan_100": "generated, 100 %",
    "gan_filtered": "generated, filtered by a classifier",
    "gan_shuffled": "generated, grades shuffled (control)",
}
"""Arm to its printed name."""

KEPT = 0.5
"""Share of the generated pictures of each grade that the filter keeps."""


@dataclass(frozen=True)
class Material:
    """Everything that the arms are made of, as standardised features.

    Attributes:
        train, validation: Real photographs at full resolution.
        small: The training photographs at the generator's size.
        augmented: Augmented views of the training photographs of all grades but the most frequent; as long as ``source``.
        source: (M,) place in ``train`` of each augmented view.
        fakes: Generated pictures with the requested grades.
        test: Real test photographs.
        table: Their rows: ``image_id, patient_id, split, grade``.
        held: Those of the validation photographs.
        middle, scale: (D,) what was subtracted from all features, and by what they were divided.
    """

    train: Known
    validation: Known
    small: Known
    augmented: Known
    source: np.ndarray
    fakes: Known
    test: Known
    table: pd.DataFrame
    held: pd.DataFrame
    middle: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Arm:
    """A training set and how it is drawn from.

    Attributes:
        name: Key of :data:`KINDS`.
        known: Features and grades.
        sampler: See :func:`drstudy.training.sampling.grade_weights`.
        added: (5,) number of pictures that were added for each grade.
        distinct: (5,) how many different pictures are among these.
    """

    name: str
    known: Known
    sampler: str
    added: np.ndarray
    distinct: np.ndarray


def needed(counts: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Number of pictures that a balanced training set needs in addition.

    Args:
        counts: (5,) number of training photographs of each grade.
        share: Share of what is missing to the most frequent grade.

    Returns:
        (5,) int64; 0 for a grade without any training photograph, since nothing can be learnt of it.
    """
    counts = np.asarray(counts, dtype=np.int64)
    missing = np.where(counts > 0, counts.max() - counts, 0)
    return np.rint(share * missing).astype(np.int64)


def material(data: Dataset, fakes: Pictures, encoder: Encoder, views: int, seed: int) -> Material:
    """Encode all pictures once.

    Features are standardised with mean and standard deviation of the real training photographs.

    Args:
        data: Photographs and split.
        fakes: Generated pictures; twice as many as :func:`needed` of each grade let the filter choose.
        encoder: Encoder of the arms, never one that has learnt the test grades.
        views: Augmented views per photograph of a rare grade, 1 or more.
        seed: Seed of the views.

    Raises:
        ValueError: If a rare grade has no generated picture, or a photograph has no grade.
    """
    parts = {split: data.part(split) for split in ("train", "validation", "test")}
    small = pictures.real(data, "train", fakes.size)  # refuses photographs without a grade
    missing = np.flatnonzero((needed(small.counts) > 0) & (fakes.counts == 0))
    if len(missing):
        raise ValueError(
            f"There is no generated picture of grade {', '.join(map(str, missing))}, which the arms need. Generate pictures of every grade that has fewer "
            "training photographs than the most frequent one."
        )
    whole = {
        split: encoder.features(data.images[np.asarray(part["row"], np.int64)])
        for split, part in parts.items()
    }
    middle, spread = whole["train"].mean(0), whole["train"].std(0)
    scale = np.where(spread > 1e-6 * max(1e-6, float(np.abs(whole["train"]).max())), spread, 1)

    def known(features: np.ndarray, grades: Iterable[int]) -> Known:
        return Known(((features - middle) / scale).astype(np.float32), np.array(grades, dtype=np.int64))

    def rows_of(part: pd.DataFrame) -> pd.DataFrame:
        return part[["image_id", "patient_id", "split", "grade"]].astype({"grade": "int64"})

    rare = np.flatnonzero(needed(small.counts)[small.grades] > 0)
    rows, source = parts["train"]["row"].to_numpy(np.int64)[rare], np.repeat(rare, views)
    turned = _views(data.images, rows, encoder.input_size, views, seed)
    augmented = (
        encoder.features(turned) if len(turned) else np.empty((0, whole["train"].shape[1]), np.float32)
    )
    real = {split: known(found, parts[split]["grade"]) for split, found in whole.items()}
    return Material(
        train=real["train"],
        validation=real["validation"],
        small=known(encoder.features(small), small.grades),
        augmented=known(augmented, small.grades[source]),
        source=source,
        fakes=known(encoder.features(fakes), fakes.grades),
        test=real["test"],
        table=rows_of(parts["test"]),
        held=rows_of(parts["validation"]),
        middle=middle,
        scale=scale,
    )


def _views(images: np.ndarray, rows: np.ndarray, size: int, views: int, seed: int) -> np.ndarray:
    """Augmented views of photographs, photograph by photograph: (len(rows) * views, size, size, 3) uint8."""
    found = np.empty((len(rows) * views, size, size, 3), np.uint8)
    for place, row in enumerate(rows):
        image = transforms.resize(transforms.channels_first(images[row]), size)
        for view in range(views):
            turned = transforms.augment(image, seed, int(row), view)
            found[place * views + view] = turned.permute(1, 2, 0).numpy()
    return found


def make(found: Material, p: HeadRecipe, compute: Compute) -> dict[str, Arm]:
    """All arms of one seed, in the order of :data:`KINDS`.

    Args:
        found: Result of :func:`material`.
        p: Recipe of the heads. Its seed draws the pictures that are added, and trains the classifier of the filter.
        compute: Device and precision.
    """
    base, wanted = found.train, needed(found.train.counts)
    nothing = np.zeros(N_GRADES, np.int64)
    arms = {
        name: Arm(name, base, sampler, nothing, nothing)
        for name, sampler in ((NONE, "none"), ("paper", "paper"), ("inverse", "inverse"))
    }

    def add(name: str, pool: Known, counts: np.ndarray, shuffled: bool = False) -> None:
        random = np.random.default_rng(p.seed)  # the same for all arms: equal pools give equal pictures
        places = pictures.by_counts(pool.grades, counts, random)
        extra = pool.take(places)
        distinct = np.bincount(pool.grades[np.unique(places)], minlength=N_GRADES)
        if shuffled:
            extra = Known(extra.features, random.permutation(extra.grades))
        arms[name] = Arm(name, base + extra, "none", counts, distinct)

    add("duplicated", base, wanted)
    add(FAIR, found.small, wanted)
    add("augmented", found.augmented, wanted)
    for share in SHARES:
        add(f"gan_{100 * share:.0f}", found.fakes, needed(base.counts, share))
    add("gan_filtered", likely(found, p, compute), wanted)
    add("gan_shuffled", found.fakes, wanted, shuffled=True)
    return arms


def likely(found: Material, p: HeadRecipe, compute: Compute) -> Known:
    """The generated pictures that a classifier finds most like the grade that was requested.

    The classifier is a head that was trained on the real training photographs at the generator's size, with the inverse sampler. For each
    grade the share :data:`KEPT` with the greatest probability of the requested grade stays.
    """
    judge = heads.fit(found.small, found.validation, p.model_copy(update={"sampler": "inverse"}), compute)
    said = heads.probabilities(judge, found.fakes.features)[np.arange(len(found.fakes)), found.fakes.grades]
    places = []
    for grade in np.unique(found.fakes.grades):
        own = np.flatnonzero(found.fakes.grades == grade)
        best = own[np.argsort(-said[own], kind="stable")]
        places.append(np.sort(best[: int(np.ceil(KEPT * len(best)))]))
    return found.fakes.take(np.concatenate(places))


@dataclass(frozen=True)
class Outcome:
    """What :func:`train` gives.

    Attributes:
        predictions: Arm to its predictions on the test photographs, one table per seed: ``image_id, patient_id, split, grade, p0..p4``.
        composition: One row per arm (first seed): ``arm, kind, sampler, added_gradeG, distinct_gradeG, pictures``.
        heads: Classifier of each arm, of the first seed.
        steps: Number of steps of each training.
    """

    predictions: dict[str, list[pd.DataFrame]]
    composition: pd.DataFrame
    heads: dict[str, nn.Linear]
    steps: int


def train(found: Material, p: HeadRecipe, seeds: int, compute: Compute) -> Outcome:
    """Train every arm with every seed.

    Args:
        found: Result of :func:`material`.
        p: Recipe of the heads; seeds count from ``p.seed``. Its sampler is replaced by that of each arm.
        seeds: Number of seeds, at least 1.
        compute: Device and precision.

    Raises:
        ValueError: If ``seeds`` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"SEEDS is {seeds}; at least one training per arm is needed.")
    predictions: dict[str, list[pd.DataFrame]] = {}
    first: dict[str, Arm] = {}
    kept: dict[str, nn.Linear] = {}
    for seed in range(p.seed, p.seed + seeds):
        recipe = p.model_copy(update={"seed": seed})
        arms = make(found, recipe, compute)
        first = first or arms
        for name, arm in arms.items():
            own = recipe.model_copy(update={"sampler": arm.sampler})
            head = heads.fit(arm.known, found.validation, own, compute)
            kept.setdefault(name, head)
            predictions.setdefault(name, []).append(_predicted(found, head))
    rows = [_composed(arm) for arm in first.values()]
    return Outcome(predictions, pd.DataFrame(rows), kept, p.steps)


def tested(found: Material, known: Known, p: HeadRecipe, compute: Compute) -> pd.DataFrame:
    """Train one head on features and grades, and predict the test photographs: ``image_id, patient_id, split, grade, p0..p4``."""
    return _predicted(found, heads.fit(known, found.validation, p, compute))


def _predicted(found: Material, head: nn.Linear) -> pd.DataFrame:
    return prediction.frame(found.table, heads.probabilities(head, found.test.features))


def _composed(arm: Arm) -> dict[str, object]:
    row: dict[str, object] = {"arm": arm.name, "kind": KINDS[arm.name], "sampler": arm.sampler}
    row |= {f"added_grade{grade}": int(count) for grade, count in enumerate(arm.added)}
    row |= {f"distinct_grade{grade}": int(count) for grade, count in enumerate(arm.distinct)}
    return row | {"pictures": len(arm.known)}
