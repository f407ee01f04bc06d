"""The sets of photographs that are compared: parts of a pooled audit, audits of other profiles, and stand-ins made from a phantom.

A set that cannot be read is named with the reason, never passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.data import dataset, splits

POOLED = "pooled"
"""Name of the training set that joins all sets of this profile."""

OTHER_CAMERA = "other camera"
"""What the second stand-in of a phantom is photographed with; see :func:`camera`."""


@dataclass(frozen=True)
class Cohort:
    """A set of graded photographs.

    Attributes:
        name: Name of the set.
        table: One row per image: ``image_id, patient_id, grade, row, group``. Images of patients who share a duplicate have one group.
        images: (N, S, S, 3) uint8, memory-mapped; ``row`` counts in it.
        key: What made the image store.
        own: Whether it belongs to this profile, and so to the training set :data:`POOLED`.
        note: What a reader must know of it; empty where nothing.
        camera: Empty, or :data:`OTHER_CAMERA`: how its photographs are changed before a network sees them.
    """

    name: str
    table: pd.DataFrame
    images: np.ndarray
    key: str
    own: bool = True
    note: str = ""
    camera: str = ""


def read(
    audit: str, others: Sequence[str], run: records.Run, most: int, seed: int
) -> tuple[list[Cohort], pd.DataFrame]:
    """The sets of this profile and of others.

    Args:
        audit: Result folder of this profile's audit. The parts of pooled data are sets of their own. A phantom alone becomes two
            stand-ins, see :func:`stand_ins`.
        others: Result folders of audits of other profiles; one that is not finished is missing, with its reason.
        run: Notes the records as inputs.
        most: Largest number of photographs of a set; of a larger one, patients are drawn at random.
        seed: Seed of that draw and of the stand-ins.

    Returns:
        The sets, and a table of all that were asked for: ``set, photographs, patients, grade 0`` to ``grade 4``, ``note``. A missing set
        has 0 photographs, and the reason in ``note``.

    Raises:
        drstudy.core.records.RecordError: If this profile's own audit is not finished.
        ValueError: If no photograph has a grade.
    """
    own = records.upstream(audit, run)
    found = _of(own, True)
    if len(found) == 1 and own.params["SOURCE"] == "phantom":
        found = stand_ins(found[0], seed)
    missing = {}
    for folder in others:
        try:
            other = records.load(folder)
        except records.RecordError as error:
            missing[folder.split("/")[1]] = f"missing: {error}"
            continue
        run.input(other.folder / "run.json")
        found += _of(other, False)
    for name in {one.name for one in found}:
        if sum(one.name == name for one in found) > 1:
            raise ValueError(f"Two sets are named {name!r}. Leave one of the audits in OTHERS out.")
    found = [fewer(one, most, seed) for one in found]
    return found, _described(found, missing)


def _of(audit: records.Record, own: bool) -> list[Cohort]:
    """The graded photographs of an audit, one set for each source."""
    data = dataset.load(audit)
    manifest = paths.read_csv(audit.path("manifest.csv"), text=("image_id", "patient_id", "source"))
    pairs = paths.read_csv(audit.path("duplicates.csv"), text=("image_id_a", "image_id_b", "kind"))
    table = data.table[["image_id", "patient_id", "grade", "row"]].reset_index(drop=True)
    table["group"] = splits.join(table, pairs).to_numpy()
    graded = table["grade"].notna()
    if not graded.any():
        raise ValueError(
            f"No photograph of {paths.show(audit.folder)} has a grade, so nothing can be trained or tested on it. Name another audit."
        )
    left_out = f"{int((~graded).sum())} photographs without a grade are left out" if not graded.all() else ""
    table = table[graded].astype({"grade": int})
    table["set"] = manifest.set_index("image_id")["source"].reindex(table["image_id"]).to_numpy()
    if audit.params["SOURCE"] != "pooled":
        table["set"] = audit.data["profile"]
    phantom = "synthetic eyes" if audit.params["SOURCE"] == "phantom" else ""
    note = "; ".join(filter(None, (phantom, left_out)))
    return [
        Cohort(name, rows.drop(columns="set").reset_index(drop=True), data.images, data.key, own, note)
        for name, rows in table.groupby("set", sort=True)
    ]


def stand_ins(phantom: Cohort, seed: int) -> list[Cohort]:
    """Two sets from one phantom, for profiles without real photographs: the patients in two halves.

    The second half has another camera and another prevalence: every second patient whose worse eye has grade 0 is left out. The
    numbers show that the notebook works, and nothing about real eyes.

    Returns:
        Two sets of distinct patients, labelled as synthetic.
    """
    worst = phantom.table.groupby("group")["grade"].max()
    order = np.random.default_rng(seed).permutation(len(worst))
    shuffled = worst.iloc[order].sort_values(kind="stable")
    second = shuffled.index[1::2]
    healthy = shuffled.loc[second].eq(0)
    dropped = second[healthy.to_numpy()][::2]
    in_second = phantom.table["group"].isin(set(second) - set(dropped))
    in_first = ~phantom.table["group"].isin(second)
    parts = (("phantom A", in_first, ""), ("phantom B", in_second, OTHER_CAMERA))
    return [
        Cohort(
            name,
            phantom.table[rows].reset_index(drop=True),
            phantom.images,
            phantom.key,
            True,
            "synthetic eyes, stand-in for a set of real photographs" + (f", {look}" if look else ""),
            look,
        )
        for name, rows, look in parts
    ]


def camera(images: np.ndarray) -> np.ndarray:
    """Photographs as another camera might take them: a warmer cast, less contrast and a softer focus. The settings are ours.

    Args:
        images: (N, S, S, 3) uint8 RGB.

    Returns:
        The same shape and type.
    """
    cast = np.array([1.05, 0.85, 0.75], np.float32)
    soft = [cv2.GaussianBlur(image, (0, 0), max(0.3, image.shape[0] / 400)) for image in images]
    return np.clip(np.stack(soft) * cast * 0.9 + 8, 0, 255).round().astype(np.uint8)


def fewer(cohort: Cohort, most: int, seed: int) -> Cohort:
    """At most so many photographs: whole groups of patients, drawn at random; the set itself if it is small enough."""
    if len(cohort.table) <= most:
        return cohort
    sizes = cohort.table.groupby("group").size().sample(frac=1, random_state=seed)
    chosen = sizes.index[sizes.cumsum() <= most]
    table = cohort.table[cohort.table["group"].isin(chosen)].reset_index(drop=True)
    note = "; ".join(
        filter(None, (cohort.note, f"{len(table)} of {len(cohort.table)} photographs drawn by patient"))
    )
    return Cohort(cohort.name, table, cohort.images, cohort.key, cohort.own, note, cohort.camera)


def _described(found: Sequence[Cohort], missing: dict[str, str]) -> pd.DataFrame:
    rows = []
    for one in found:
        counts = np.bincount(one.table["grade"], minlength=5)
        grades = {f"grade {grade}": int(count) for grade, count in enumerate(counts)}
        size = {"photographs": len(one.table), "patients": one.table["patient_id"].nunique()}
        rows.append({"set": one.name, **size, **grades, "note": one.note})
    empty = {"photographs": 0, "patients": 0} | {f"grade {grade}": 0 for grade in range(5)}
    rows += [{"set": name, **empty, "note": reason} for name, reason in missing.items()]
    return pd.DataFrame(rows)
