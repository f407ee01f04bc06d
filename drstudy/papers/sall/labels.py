"""Which disease's label a photograph shows, and which labels stay hidden (``docs/sources.md``, C1 and C3)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from drstudy.core import records
from drstudy.data import amd, manifest
from drstudy.data.dataset import Dataset
from drstudy.papers.sall.params import DISEASES, Sall

ORIGINS = ("dr", "amd", "normal")
"""Where a photograph would come from: a collection of either disease, or the normal photographs that serve both."""


class LabelError(ValueError):
    """The photographs have no labels from which two diseases could be learnt."""


def truth(audit: records.Record, data: Dataset, p: Sall) -> pd.DataFrame:
    """The labels of both diseases of every photograph.

    Args:
        audit: Record of notebook 01.
        data: Photographs and their split.
        p: Names of the columns, and numbers of classes.

    Returns:
        ``image_id, patient_id, split, dr, amd``: float64, whole numbers from 0, NaN where the source does not say.

    Raises:
        LabelError: If a column is missing, a label is not below the number of classes, or a training split lacks diseased eyes.
    """
    table = manifest.read(audit.path("manifest.csv"))
    if amd.columns(table):
        table = table.assign(amd=amd.labels(table)["amd"])
    table = table.set_index("image_id")
    found = data.table[["image_id", "patient_id", "split"]].reset_index(drop=True)
    for disease, column, classes in zip(DISEASES, (p.dr_label, p.amd_label), p.classes):
        if column not in table:
            raise LabelError(
                f"The manifest of {p.audit} has no column {column!r}. Point AUDIT to photographs with labels of both diseases, such as the "
                "variant 'amd' of notebook 01."
            )
        values = pd.to_numeric(table[column].reindex(found["image_id"])).to_numpy(
            dtype=float, na_value=np.nan
        )
        if (values >= classes).any():
            raise LabelError(
                f"Column {column!r} has the label {np.nanmax(values):.0f}, but CLASSES allows {classes} classes, 0 to {classes - 1}. "
                "Correct CLASSES."
            )
        if not (values[(found["split"] == "train").to_numpy()] > 0).any():
            raise LabelError(
                f"No training photograph has {disease.upper()} by the column {column!r}; nothing can be learnt."
            )
        found[disease] = values
    return found


def assign(table: pd.DataFrame, seed: int) -> pd.Series:
    """The collection that each photograph belongs to, one for all photographs of a patient (**a choice**).

    A patient with one disease belongs to its collection; of patients with both, a seeded coin decides. A photograph without either
    disease serves both, whatever its patient's collection. Of a patient without known disease, a photograph with one unknown label belongs to the
    collection of the label that is known.

    Args:
        table: Result of :func:`truth`; an unknown label counts as absent disease.
        seed: Seed of the coin.

    Returns:
        One of :data:`ORIGINS` per row. Names of patients alone decide the coin, not the order of rows.
    """
    ill = table.assign(**{name: table[name].fillna(0) > 0 for name in DISEASES})
    by_patient = ill.groupby("patient_id")[list(DISEASES)].any().sort_index()
    coin = np.random.default_rng(seed).random(len(by_patient)) < 0.5
    both = by_patient["dr"] & by_patient["amd"]
    to_dr = np.where(both, coin, by_patient["dr"])
    owner = pd.Series(np.where(to_dr, "dr", "amd"), index=by_patient.index)
    healthy = (table[list(DISEASES)] == 0).all(axis=1)
    origin = table["patient_id"].map(owner).where(~healthy, "normal")
    ill_patient = by_patient.any(axis=1).reindex(table["patient_id"]).to_numpy()
    known = pd.Series(np.where(table["dr"].notna(), "dr", "amd"), index=table.index)
    return origin.where(healthy | ill_patient, known).rename("origin")


def shown(table: pd.DataFrame, origin: pd.Series) -> pd.DataFrame:
    """The labels that training and validation may read.

    Args:
        table: Result of :func:`truth`.
        origin: Result of :func:`assign`.

    Returns:
        ``image_id, dr, amd, domain``: a label of a disease is NaN where it is hidden, and on all test photographs; ``domain`` is 0 for
        the DR collection, 1 for AMD, NaN for normal and test photographs.
    """
    learning = table["split"] != "test"
    found = table[["image_id"]].copy()
    for disease in DISEASES:
        found[disease] = table[disease].where(learning & origin.isin([disease, "normal"]))
    domain = origin.map({"dr": 0.0, "amd": 1.0}).astype(float)
    return found.assign(domain=domain.where(learning))


def counts(table: pd.DataFrame, origin: pd.Series) -> pd.DataFrame:
    """Photographs by split and collection, and how many have each disease: what is shown, and what is hidden."""
    about = table.assign(origin=origin, **{name: table[name] > 0 for name in DISEASES})
    found = about.groupby(["split", "origin"]).agg(
        photographs=("image_id", "size"),
        patients=("patient_id", "nunique"),
        with_dr=("dr", "sum"),
        with_amd=("amd", "sum"),
    )
    order = [(split, name) for split in ("train", "validation", "test") for name in ORIGINS]
    return found.reindex([key for key in order if key in found.index]).reset_index()


def fraction(table: pd.DataFrame, origin: pd.Series, share: float, seed: int) -> np.ndarray:
    """Training photographs that keep their labels; the others are left out of the training altogether.

    Patients are ordered once, within their collection, so a smaller share is part of a larger one. Validation keeps its labels.

    Args:
        table, origin: As in :func:`shown`.
        share: Share of the patients of each collection, above 0 to 1; at least two patients of each are kept.
        seed: Seed of the order.

    Returns:
        (N,) bool; True outside the training split.
    """
    kept = (table["split"] != "train").to_numpy(copy=True)
    random = np.random.default_rng(seed)
    for name in ORIGINS:
        here = ((table["split"] == "train") & (origin == name)).to_numpy()
        patients = random.permutation(np.unique(table.loc[here, "patient_id"]))
        chosen = patients[: max(2, round(share * len(patients)))]
        kept |= here & table["patient_id"].isin(chosen).to_numpy()
    return kept


def folds(patients: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each photograph, (N,) int, 0 to ``count`` - 1; a patient lies in one fold.

    Args:
        patients: Patient of each photograph, (N,).
        count: Number of folds.
        seed: Seed of the order of the patients.
    """
    names, place = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    of_patient = np.random.default_rng(seed).permutation(len(names)) % count
    return of_patient[place]
