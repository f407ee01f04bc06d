"""The audited images, as the later notebooks use them: the image store joined with the split."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.core.names import AMD_COLUMNS, SPLITS
from drstudy.data import images, splits


@dataclass(frozen=True)
class Dataset:
    """Images and their split.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        table: One row per image of the split: ``image_id, patient_id, grade, split, row`` (its place in ``images``), and a float
            column for each further target.
        key: What made the store.
        targets: Columns of ``table`` that a network may learn; in all but ``grade``, NaN is *unknown* (not annotated), never 0.
    """

    images: np.ndarray
    table: pd.DataFrame
    key: str
    targets: tuple[str, ...] = ("grade",)

    def part(self, split: str) -> pd.DataFrame:
        """Rows of one split, or of ``all``, in the order of the split file.

        Raises:
            ValueError: If the split is unknown or empty.
        """
        if split not in (*SPLITS, "all"):
            raise ValueError(f"There is no split {split!r}; there are {', '.join(SPLITS)} and all.")
        part = self.table if split == "all" else self.table[self.table["split"] == split]
        if part.empty:
            raise ValueError(
                f"No image is in the split {split!r}. Give it a larger share in FRACTIONS, or more images."
            )
        return part.reset_index(drop=True)

    def without_test(self) -> Dataset:
        """The same images with the training images, unaugmented, in the place of the test images.

        A feature store of it gives, beside the views for training, each training image as it is. Cross-fitting and choices
        on validation need it, and neither may read the test images.
        """
        train, validation = self.part("train"), self.part("validation")
        table = pd.concat([train, validation, train.assign(split="test")], ignore_index=True)
        return replace(self, table=table)

    def with_targets(self, targets: pd.DataFrame) -> Dataset:
        """The same images with further targets.

        Args:
            targets: ``image_id`` and one numeric column per target; the column's name is the target's. NaN, and images that are not in
                it, are unknown.

        Raises:
            ValueError: If an image stands in it twice, a name is taken already, a value is no finite number, or no image is known.
        """
        _check_targets(targets, self.table.columns)
        if len(targets) and not targets["image_id"].isin(self.table["image_id"]).any():
            raise ValueError(
                f"None of the {len(targets)} images of the targets is among the {len(self.table)} images; compare {targets['image_id'].tolist()[0]!r} "
                f"with {self.table['image_id'].iloc[0]!r} (image identifiers are texts)."
            )
        names = [name for name in targets.columns if name != "image_id"]
        wide = targets.set_index("image_id")[names].astype(float).reindex(self.table["image_id"])
        table = self.table.assign(**{name: wide[name].to_numpy() for name in names})
        return replace(self, table=table, targets=(*self.targets, *names))


def _check_targets(targets: pd.DataFrame, taken: Iterable[str]) -> None:
    """Refuse targets that would be joined wrongly or silently become something else."""
    if "image_id" not in targets or targets["image_id"].duplicated().any():
        raise ValueError("Targets need a column image_id with each image once.")
    for name in targets.columns.drop("image_id"):
        if name in taken:
            raise ValueError(
                f"A target cannot be named {name!r}: the table of images has a column of that name."
            )
        values = pd.to_numeric(targets[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if np.isinf(values).any() or (np.isnan(values) & targets[name].notna().to_numpy()).any():
            raise ValueError(
                f"Target {name!r} has values that are no finite numbers; leave out what is not annotated (NaN)."
            )


def load(audit: records.Record, ungraded: bool = False) -> Dataset:
    """Open what notebook 01 left: its ``split.csv`` and its image store. Every notebook that trains comes through here.

    Labels of AMD are targets only for who asks: ``load(audit).with_targets(drstudy.data.amd.targets(audit))``.

    Args:
        audit: Record of notebook 01.
        ungraded: Whether images without a grade but with a label of AMD stand in their part, with ``grade`` missing. Else they are in no
            part, so that whoever learns grades alone finds a grade in every row of a part.

    Raises:
        records.RecordError: If the store was deleted or does not hold the split's images.
        splits.LeakError: If a patient, an identical image or a near duplicate (``duplicates.csv``) stands on two sides
            of the split, before anything is trained on it.
    """
    made = json.loads(audit.path("images.json").read_text(encoding="utf-8"))
    folder = paths.resolve(made["store"])
    if not (folder / "store.json").is_file():
        raise records.RecordError(
            f"The image store {made['store']} is gone. Delete {paths.show(audit.folder)} and run notebook 01 again."
        )
    try:
        store = images.open_store(folder)
    except images.StoreError as error:
        raise records.RecordError(f"{error} `drstudy reproduce` does so.") from None
    whole = splits.read(audit.path("split.csv"))
    said = [name for name in AMD_COLUMNS if name in whole]
    split = whole.drop(columns=said)
    if not ungraded and whole[["grade", *said]].notna().any(axis=None):
        split["split"] = split["split"].mask(split["grade"].isna(), splits.UNGRADED)
    rows = pd.Series(store.index["row"].to_numpy(), index=store.index["image_id"].astype(str))
    absent = split.loc[~split["image_id"].isin(rows.index), "image_id"]
    if len(absent):
        raise records.RecordError(
            f"{len(absent)} images of the split are not in the store {made['store']} (first: {absent.iloc[0]}). Run notebook 01 again."
        )
    pairs = paths.read_csv(audit.path("duplicates.csv"), text=("image_id_a", "image_id_b", "kind"))
    splits.check(whole, pairs)
    return Dataset(store.images, split.assign(row=rows.loc[split["image_id"]].to_numpy()), folder.name)
