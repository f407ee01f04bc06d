"""IDRiD: outlined lesions (part A) and grades (part B), on different photographs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data import masks
from drstudy.data.sources.base import Reading, SourceError, add, entry, name_unlabelled, scan, walk
from drstudy.data.sources.tables import need_columns, read_csv

LAYOUT = (
    "IDRiD has 'A. Segmentation' with '1. Original Images' and '2. All Segmentation Groundtruths', "
    "and 'B. Disease Grading'."
)

MASKS = {"MA": "MA", "HE": "HE", "EX": "EX", "SE": "SE", "OD": "DISC"}
"""The code at the end of a mask's file name to the code of the study."""
ANNOTATED = ("MA", "HE", "EX", "SE")
"""Lesions that the set outlines."""


def read(reading: Reading) -> None:
    """Read the parts that are there. Photographs of part A have masks and no grade, those of part B the reverse."""
    segmentation, grading = (entry(reading.root, name) for name in ("A. Segmentation", "B. Disease Grading"))
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
    """Photographs with their masks. A lesion that the whole set outlines, and of which an annotated photograph has no file, is absent there.

    What has no mask at all, or of a lesion that no file outlines, is not annotated.
    """
    truths = "A. Segmentation/2. All Segmentation Groundtruths"
    files = scan(reading, "A. Segmentation/1. Original Images")
    if not entry(reading.root, truths).is_dir():
        reading.notes.append(f"{truths!r} is missing: no lesion is annotated in these photographs.")
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for relative in walk(reading, truths):
        stem, _, code = PurePosixPath(relative).stem.rpartition("_")
        known = files.find(stem)
        if code.upper() not in MASKS or not known:
            reading.problems.append(
                (reading.show(relative), "mask without an image, or of an unknown kind", manifests.IGNORED)
            )
            continue
        column = f"mask_{MASKS[code.upper()]}"
        if column in found[known[0]]:
            reading.problems.append(
                (reading.show(relative), f"second mask of {stem}, {code}", manifests.IGNORED)
            )
            continue
        found[known[0]][column] = reading.show(relative)
    outlined = {code for masks in found.values() for code in ANNOTATED if f"mask_{code}" in masks}
    for stem, listed in sorted(files.by_stem.items()):
        row: dict[str, Any] = dict(found.get(listed[0], {}))
        annotated = outlined if any(f"mask_{code}" in row for code in ANNOTATED) else set()
        row |= {
            f"lesion_{code}": int(f"mask_{code}" in row) if code in annotated else None for code in ANNOTATED
        }
        if not annotated:
            reading.problems.append(
                (reading.show(listed[0]), "no lesion mask", "used: its lesions count as not annotated")
            )
        reading.problems += masks.examine(row, reading.root / listed[0])
        add(reading, files, stem, None, **row)


def _read_grading(reading: Reading) -> None:
    truths = entry(reading.root, "B. Disease Grading/2. Groundtruths")
    tables = [path for path in sorted(truths.glob("*.[cC][sS][vV]")) if not path.name.startswith(".")]
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
