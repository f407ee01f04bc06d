"""The phantom: read from its folder, and rendered first where it is missing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from drstudy.core import paths
from drstudy.data import masks as masks_of
from drstudy.data.sources.base import Reading, add, name_unlabelled, scan
from drstudy.data.sources.tables import need_columns, needed, read_csv

if TYPE_CHECKING:
    from drstudy.core.params import DataAudit

LAYOUT = "A phantom has labels.csv, images/ and masks/; leave DATA_ROOT empty to have one made."


def read(reading: Reading) -> None:
    """Read ``labels.csv``, with the masks that each image has."""
    table = read_csv(needed(reading, "labels.csv"), reading)
    need_columns(reading, table, "labels.csv", "image_id", "patient_id", "eye", "grade")
    files = scan(reading, "images")
    masks = {path.stem: path for path in sorted((reading.root / "masks").glob("*.png"))}
    codes = sorted({stem.rpartition("_")[2] for stem in masks})
    lesions = [name for name in table if name.startswith("lesion_")]
    for row in table.to_dict("records"):
        name = row["image_id"]
        extra = {
            f"mask_{code}": reading.show(f"masks/{name}_{code}.png")
            for code in codes
            if f"{name}_{code}" in masks
        }
        extra |= {column: row[column] for column in (*lesions, "true_grade", "gradable") if column in row}
        if image := files.find(name):
            reading.problems += masks_of.examine(extra, reading.root / image[0])
        add(reading, files, name, row["grade"], patient=row["patient_id"], eye=row["eye"], **extra)
    name_unlabelled(reading, files)


def prepare_phantom(parameters: DataAudit) -> Path:
    """The phantom that these parameters describe, rendered under ``data/phantom/`` where it is missing.

    Returns:
        Its folder, which is named by what makes it.
    """
    from drstudy.data import phantom

    config = phantom.PhantomConfig(
        n_patients=parameters.n_patients,
        size=parameters.phantom_size,
        seed=parameters.seed,
        distribution=parameters.distribution,
        difficulty=parameters.difficulty,
        label_noise=parameters.label_noise,
    )
    made_by = json.dumps({"format": phantom.writing.FORMAT, "config": config.to_dict()}, sort_keys=True)
    key = hashlib.sha256(made_by.encode()).hexdigest()[:12]
    folder = paths.data() / "phantom" / f"{config.n_patients}x{config.size}-{key}"
    with paths.locked(folder.with_suffix(".lock")):
        return phantom.write(config, folder, parameters.workers or os.cpu_count() or 1)
