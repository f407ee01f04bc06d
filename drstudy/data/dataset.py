"""The audited images, as the later notebooks use them: the image store joined with the split."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drstudy.core import paths, records
from drstudy.data import images, splits

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Images and their split.

    Attributes:
        images: (N, S, S, 3) uint8 RGB, memory-mapped.
        table: One row an image of the split: ``image_id, patient_id, grade, split, row`` (its place in ``images``).
        key: What made the store.
    """

    images: np.ndarray
    table: pd.DataFrame
    key: str

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
        return Dataset(self.images, table, self.key)


def load(audit: records.Record) -> Dataset:
    """Open what notebook 01 left: its ``split.csv`` and its image store. Every notebook that trains comes through here.

    Raises:
        records.RecordError: If the store was deleted or does not hold the split's images.
        splits.LeakError: If a patient, an identical image or a near duplicate (``duplicates.csv``) stands on two sides
            of the split, before anything is trained on it.
    """
    made = json.loads(audit.path("images.json").read_text())
    folder = paths.resolve(made["store"])
    if not (folder / "store.json").is_file():
        raise records.RecordError(
            f"The image store {made['store']} is gone. Delete {paths.show(audit.folder)} and run notebook 01 again."
        )
    store = images.open_store(folder)
    split = pd.read_csv(audit.path("split.csv"), dtype={"image_id": str, "patient_id": str, "grade": "Int64"})
    rows = pd.Series(store.index["row"].to_numpy(), index=store.index["image_id"].astype(str))
    absent = split.loc[~split["image_id"].isin(rows.index), "image_id"]
    if len(absent):
        raise records.RecordError(
            f"{len(absent)} images of the split are not in the store {made['store']} (first: {absent.iloc[0]}). Run notebook 01 again."
        )
    pairs = pd.read_csv(audit.path("duplicates.csv"), dtype={"image_id_a": str, "image_id_b": str})
    splits.check(split, pairs)
    return Dataset(store.images, split.assign(row=rows.loc[split["image_id"]].to_numpy()), folder.name)
