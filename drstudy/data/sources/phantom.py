"""The phantom: read from its folder, and rendered first where it is missing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.core import paths
from drstudy.data import masks as masks_of
from drstudy.data.sources.base import Reading, add, name_unlabelled, scan
from drstudy.data.sources.tables import need_columns, needed, read_csv

if TYPE_CHECKING:
    from drstudy.core.params import DataAudit
    from drstudy.data.phantom import PhantomConfig

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
        if "amd_grade" in row:
            extra |= {"amd_grade": row["amd_grade"], "amd": int(row["amd_grade"] != "0")}
        if image := files.find(name):
            reading.problems += masks_of.examine(extra, reading.root / image[0])
        add(reading, files, name, row["grade"], patient=row["patient_id"], eye=row["eye"], **extra)
    name_unlabelled(reading, files)


def config_of(parameters: Mapping[str, Any]) -> PhantomConfig:
    """The phantom that parameters of notebook 01 describe.

    Args:
        parameters: By their names in lower case; what a record lacks, because it is older, has its default.
    """
    from drstudy.data import phantom

    names = {"n_patients", "seed", "distribution", "difficulty", "label_noise"}
    given = {name: parameters[name] for name in names} | {"size": parameters["phantom_size"]}
    if shares := parameters.get("amd_shares"):
        given |= {"amd": tuple(shares), "amd_grades": tuple(parameters["amd_distribution"])}
        given["amd_atrophy"] = parameters["amd_atrophy"]
    return phantom.PhantomConfig(**given)


def prepare_phantom(parameters: DataAudit) -> Path:
    """The phantom that these parameters describe, rendered under ``data/phantom/`` where it is missing.

    Returns:
        Its folder, which is named by what makes it.
    """
    from drstudy.data import phantom

    config = config_of(parameters.model_dump())
    made_by = json.dumps({"format": phantom.writing.FORMAT, "config": config.to_dict()}, sort_keys=True)
    key = hashlib.sha256(made_by.encode()).hexdigest()[:12]
    folder = paths.data() / "phantom" / f"{config.n_patients}x{config.size}-{key}"
    with paths.locked(folder.with_suffix(".lock")):
        return phantom.write(config, folder, parameters.workers or os.cpu_count() or 1)
