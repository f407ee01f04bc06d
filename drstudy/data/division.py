"""Where the split of an audit comes from: drawn, or taken from another audit of the same photographs.

Two audits of the same photographs at two sizes must have one split, or a network that was trained at one size would be tested at
the other on photographs that it knows. Drawing with the same seed is not enough: near duplicates are looked for in the
crops, and at another size other pairs may be found, which keep other patients together.
"""

from __future__ import annotations

from typing import Protocol

import pandas as pd

from drstudy.core import records
from drstudy.data import audit, duplicates, splits
from drstudy.data.images import ImageStore
from drstudy.data.sources import Source

SAME = ("SPLIT_BY", "FRACTIONS")
"""Parameters that say what the split is, and so must be those of the other audit."""


class Parameters(Protocol):
    """The parameters of notebook 01 that decide the split."""

    split_by: str
    fractions: tuple[float, float, float]
    seed: int
    near_duplicate_bits: int
    split_from: str


def of(
    p: Parameters, source: Source, store: ImageStore, run: records.Run | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Duplicates and split of an audit.

    Args:
        p: Parameters of notebook 01. ``split_from`` names the result folder of another audit, or is empty.
        source: The data set as read.
        store: Its image store.
        run: Notes the other audit as an input of this run.

    Returns:
        Pairs as :func:`drstudy.data.duplicates.find` gives them, and the split as :func:`drstudy.data.splits.make` does.

    Raises:
        drstudy.data.splits.SplitError: If a split cannot be drawn; or if the other audit has other photographs, patients
            or grades, split one that is left out here, or has another ``SPLIT_BY`` or ``FRACTIONS``.
        drstudy.core.records.RecordError: If the other audit is not finished.
    """
    manifest = audit.usable(source.manifest, store)
    if not p.split_from:
        pairs = duplicates.find(store, p.near_duplicate_bits)
        return pairs, splits.make(manifest, p.fractions, p.seed, p.split_by, pairs)
    other = records.upstream(p.split_from, run)
    here = {"SPLIT_BY": p.split_by, "FRACTIONS": list(p.fractions)}
    for name in SAME:
        there = other.params[name]
        if there != here[name]:
            raise splits.SplitError(
                f"{name} is {here[name]!r} here and {there!r} in {p.split_from}, whose split is to be taken: set it to {there!r}."
            )
    text = {"image_id_a": str, "image_id_b": str}
    split = splits.read(other.path("split.csv"))
    pairs = pd.read_csv(other.path("duplicates.csv"), dtype=text, keep_default_na=False)
    _check(p.split_from, split, source, manifest)
    order = split.set_index("image_id").loc[manifest["image_id"]].reset_index()
    return pairs[list(duplicates.COLUMNS)], order


def _check(folder: str, split: pd.DataFrame, source: Source, manifest: pd.DataFrame) -> None:
    """Refuse the split of other photographs; see :func:`of`."""
    theirs, ours, read = (set(frame["image_id"]) for frame in (split, manifest, source.manifest))
    left_out = sorted((theirs - ours) & read)
    if left_out:
        raise splits.SplitError(
            f"{len(left_out)} photographs that {folder} split are quarantined here, {left_out[0]!r} for one: "
            "their files cannot be decoded. Restore them, or run that audit without them."
        )
    for one, other, where, missing in (
        (theirs, ours, "here", folder),
        (ours, theirs, f"in {folder}", "this audit"),
    ):
        if gone := sorted(one - other):
            raise splits.SplitError(
                f"{len(gone)} photographs of {missing} are not {where}, {gone[0]!r} for one. A split can be taken only from "
                "an audit of the same photographs; look at both quarantine.csv, or leave SPLIT_FROM empty."
            )
    both = split.merge(manifest, on="image_id", suffixes=("", "_here"))
    same = both["patient_id"] == both["patient_id_here"]
    for name in splits.LABELS:
        if f"{name}_here" in both:
            same &= both[name].fillna(-1) == both[f"{name}_here"].fillna(-1)
    if not same.all():
        raise splits.SplitError(
            f"{int((~same).sum())} photographs have another patient or grade in {folder}, "
            f"{both.loc[~same, 'image_id'].iloc[0]!r} for one: these are other photographs with the same names. "
            "For a phantom, give both audits the same SEED, N_PATIENTS, DISTRIBUTION, DIFFICULTY, LABEL_NOISE and shares of AMD."
        )
