"""APTOS 2019: one table, one folder of images, no patients."""

from __future__ import annotations

from drstudy.data.sources.base import Reading, add, name_unlabelled, scan
from drstudy.data.sources.tables import need_columns, needed, read_csv

LAYOUT = "APTOS 2019 has train.csv (id_code,diagnosis) and train_images/<id>.png, unpacked."


def read(reading: Reading) -> None:
    """Read ``train.csv``."""
    table = read_csv(needed(reading, "train.csv"), reading)
    need_columns(reading, table, "train.csv", "id_code", "diagnosis")
    files = scan(reading, "train_images")
    reading.notes.append(
        "APTOS names no patients: each image counts as its own patient, so a split cannot keep fellow eyes "
        "together."
    )
    for row in table.to_dict("records"):
        add(reading, files, row["id_code"], row["diagnosis"])
    name_unlabelled(reading, files)
