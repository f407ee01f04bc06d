"""The Kaggle data set of EyePACS: two eyes per patient, named by patient and side."""

from __future__ import annotations

from drstudy.data.sources.base import Reading, add, name_unlabelled, patient_and_eye, scan, stem
from drstudy.data.sources.tables import need_columns, needed, read_csv

LAYOUT = (
    "The Kaggle set (EyePACS) has trainLabels.csv (image,level) and "
    "train/<patient>_<left|right>.jpeg, unpacked."
)


def read(reading: Reading) -> None:
    """Read ``trainLabels.csv``; patient and eye are in the names of the images."""
    table = read_csv(needed(reading, "trainLabels.csv"), reading)
    need_columns(reading, table, "trainLabels.csv", "image", "level")
    files = scan(reading, "train")
    for row in table.to_dict("records"):
        name = stem(row["image"])
        add(reading, files, row["image"], row["level"], **patient_and_eye(reading, name))
    name_unlabelled(reading, files)
