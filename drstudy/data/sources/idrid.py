"""IDRiD: outlined lesions (part A) and grades (part B), on different photographs."""

from __future__ import annotations

from collections import defaultdict

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources.base import Reading, SourceError, add, name_unlabelled, scan
from drstudy.data.sources.tables import need_columns, read_csv

LAYOUT = (
    "IDRiD has 'A. Segmentation' with '1. Original Images' and '2. All Segmentation Groundtruths', "
    "and 'B. Disease Grading'."
)

MASKS = {"MA": "MA", "HE": "HE", "EX": "EX", "SE": "SE", "OD": "DISC"}
"""The code at the end of a mask's file name to the code of the study."""


def read(reading: Reading) -> None:
    """Read the parts that are there. Photographs of part A have masks and no grade, those of part B the reverse."""
    segmentation, grading = reading.root / "A. Segmentation", reading.root / "B. Disease Grading"
    if not segmentation.is_dir() and not grading.is_dir():
        raise SourceError(
            f"{paths.show(reading.root)} holds neither 'A. Segmentation' nor 'B. Disease Grading'. "
            f"{reading.layout}"
        )
    reading.notes.append("IDRiD names no patients: each image counts as its own patient.")
    if segmentation.is_dir():
        _read_segmentation(reading)
    if grading.is_dir():
        _read_grading(reading)
    else:
        reading.notes.append(
            "Only IDRiD's segmentation part is here: the images have lesion masks but no grade."
        )


def _read_segmentation(reading: Reading) -> None:
    truths = "A. Segmentation/2. All Segmentation Groundtruths"
    files = scan(reading, "A. Segmentation/1. Original Images")
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((reading.root / truths).rglob("*")):
        if path.suffix.lower() not in (".tif", ".tiff", ".png"):
            continue
        stem, _, code = path.stem.rpartition("_")
        relative = path.relative_to(reading.root).as_posix()
        if code not in MASKS or stem not in files.by_stem:
            reading.problems.append(
                (reading.show(relative), "mask without an image, or of an unknown kind", manifests.IGNORED)
            )
            continue
        found[stem][f"mask_{MASKS[code]}"] = reading.show(relative)
    for stem in sorted(files.by_stem):
        masks = found[stem]
        lesions = {f"lesion_{code}": int(f"mask_{code}" in masks) for code in ("MA", "HE", "EX", "SE")}
        add(reading, files, stem, None, **masks, **lesions)


def _read_grading(reading: Reading) -> None:
    tables = sorted((reading.root / "B. Disease Grading" / "2. Groundtruths").glob("*.csv"))
    if not tables:
        raise SourceError(f"'B. Disease Grading/2. Groundtruths' holds no CSV. {reading.layout}")
    for path in tables:
        testing = "test" in path.stem.lower()
        part = "b. Testing Set" if testing else "a. Training Set"
        files = scan(reading, f"B. Disease Grading/1. Original Images/{part}")
        table = read_csv(path, reading)
        need_columns(reading, table, path.name, "Image name", "Retinopathy grade")
        for row in table.to_dict("records"):
            # both parts count from IDRiD_001, so the part belongs to the id
            image_id = row["Image name"].replace("IDRiD", "IDRiD_test" if testing else "IDRiD_train")
            add(reading, files, row["Image name"], row["Retinopathy grade"], image_id=image_id)
        name_unlabelled(reading, files)
