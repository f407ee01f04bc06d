"""What every layout needs: a data set as read, its files by name, and one labelled image at a time."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from drstudy.core.names import GRADES
from drstudy.data import manifest as manifests

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".gif")
NAME_WITH_EYE = re.compile(r"^(?P<patient>.+)_(?P<eye>left|right)$", re.IGNORECASE)

EYES = {"left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right", "": ""}


class SourceError(ValueError):
    """A folder that is not the data set that it was said to be, with the layout that is expected."""


@dataclass(frozen=True)
class Source:
    """A data set as read.

    Attributes:
        name: phantom, eyepacs, aptos, idrid, diaretdb1, folder or pooled.
        root: Folder of the data set.
        manifest: See :mod:`drstudy.data.manifest`; rows whose file exists and whose label can be used.
        problems: Columns file, problem, action: what was left out or noticed, one row each.
        notes: Sentences about the whole set that a reader must know.
    """

    name: str
    root: Path
    manifest: pd.DataFrame
    problems: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass
class Reading:
    """What the reader of a layout gathers: rows that may be used, problems and notes.

    Attributes:
        name: Name of the source.
        root: Folder of the data set.
        prefix: The folder as manifests write it.
        layout: The files that the source must have, in a sentence for error messages.
        votes: Number of experts who must have marked a pixel, where experts marked pixels.
        rows: One row per usable label, as :func:`drstudy.data.manifest.build` takes them.
        problems: Tuples (file, problem, action).
        notes: Sentences about the whole set.
    """

    name: str
    root: Path
    prefix: str
    layout: str
    votes: int = 3
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def exclude(self, file: str, problem: str) -> None:
        """Record a file or a line of a table that cannot be used."""
        self.problems.append((file, problem, manifests.EXCLUDED))

    def show(self, path: str) -> str:
        """A path relative to the data set's root as manifests write it."""
        return f"{self.prefix}/{path}"


@dataclass
class Files:
    """Image files below a folder, by stem and by path relative to it (lower case); ``used`` grows as labels
    claim them."""

    folder: str
    by_stem: dict[str, list[str]]
    by_name: dict[str, list[str]]
    used: set[str] = field(default_factory=set)

    def find(self, name: str) -> list[str]:
        """Files (relative to the data set) that a label's name may mean: the name as it stands, else without
        its suffix."""
        name = name.removeprefix("./")
        base = name.rpartition("/")[2]
        exact = [
            path
            for path in self.by_name.get(base.lower(), [])
            if path.lower().endswith(f"/{name}".lower()) or path.lower() == name.lower()
        ]
        stem = base.rpartition(".")[0] if base.lower().endswith(IMAGE_SUFFIXES) else base
        return exact or self.by_stem.get(stem, [])


def scan(reading: Reading, folder: str) -> Files:
    """List the image files below a folder of the data set, as they stream from the directory; hidden files
    are skipped.

    Raises:
        SourceError: If the folder is missing.
    """
    base = reading.root / folder
    if not base.is_dir():
        packed = [path.name for path in sorted(reading.root.glob("*.zip*"))]
        hint = f" {', '.join(packed[:3])} must be unpacked first." if packed else ""
        raise SourceError(f"{reading.show(folder)} is missing.{hint} {reading.layout}")
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, list[str]] = defaultdict(list)
    for directory, subfolders, names in os.walk(base):
        subfolders.sort()
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(IMAGE_SUFFIXES):
                continue
            relative = Path(directory, name).relative_to(reading.root).as_posix()
            by_stem[name.rpartition(".")[0]].append(relative)
            by_name[name.lower()].append(relative)
    return Files(folder, dict(by_stem), dict(by_name))


def add(
    reading: Reading,
    files: Files,
    name: str,
    grade: str | None,
    patient: str = "",
    eye: str = "",
    image_id: str = "",
    **extra: Any,
) -> None:
    """Take one label: find its file and read its grade, or say why not. ``grade`` None means that the source
    has none."""
    name = name.strip()
    found = files.find(name)
    files.used.update(found)
    if not name:
        return reading.exclude("(no name)", f"a label ({grade!r}) without an image name")
    if not found:
        return reading.exclude(
            reading.show(f"{files.folder}/{name}" if files.folder else name),
            "missing file: there is a label but no image",
        )
    if len(found) > 1:
        return reading.exclude(
            reading.show(found[0]), f"{len(found)} files fit the label {name!r}: {', '.join(found)}"
        )
    value, problem = (None, "") if grade is None else read_grade(grade)
    if problem:
        return reading.exclude(reading.show(found[0]), problem)
    side = EYES.get(eye.strip().lower())
    if side is None:
        reading.problems.append(
            (reading.show(found[0]), f"eye {eye!r} is neither left nor right", "used: eye left blank")
        )
    image_id = image_id or Path(found[0]).stem
    reading.rows.append(
        {
            "image_id": image_id,
            "path": reading.show(found[0]),
            "patient_id": patient.strip() or image_id,
            "eye": side or "",
            "grade": value,
            "source": reading.name,
            **extra,
        }
    )


def read_grade(text: str) -> tuple[int | None, str]:
    """A grade from a table's cell: ``(grade, "")``, or ``(None, problem)``; ``2`` and ``2.0`` are grades,
    ``2.5`` is not."""
    text = text.strip()
    if text.lower() in ("", "nan", "na", "n/a", "none", "null"):
        return None, "label missing"
    try:
        number = float(text)
    except ValueError:
        return None, f"label {text!r} is not a number"
    if not number.is_integer():
        return None, f"label {text} is not a whole number"
    if int(number) not in GRADES:
        return None, f"label {text} is outside {GRADES[0]} to {GRADES[-1]}"
    return int(number), ""


def name_unlabelled(reading: Reading, files: Files) -> None:
    """Record every image file that no label has claimed."""
    for listed in files.by_stem.values():
        for path in listed:
            if path not in files.used:
                reading.exclude(reading.show(path), "no label: there is an image but no row for it")


def patient_and_eye(stem: str) -> dict[str, str]:
    """``patient`` and ``eye`` of a file name like ``12_left``; both empty for any other name."""
    match = NAME_WITH_EYE.match(stem)
    return {"patient": match["patient"], "eye": match["eye"].lower()} if match else {"patient": "", "eye": ""}
