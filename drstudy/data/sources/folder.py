"""Any folder of images: with one table of labels, or with one folder per grade."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources.base import (
    IMAGE_SUFFIXES,
    Reading,
    SourceError,
    add,
    name_unlabelled,
    patient_and_eye,
    scan,
)
from drstudy.data.sources.tables import read_csv

NAME_WITH_SIDE = re.compile(r"^(?P<patient>.+)[ _-](?P<eye>left|right|l|r|od|os)$", re.IGNORECASE)
"""Names that end in an eye, as people write it."""

LAYOUT = (
    "A folder has one CSV with an image and a grade column, or one folder a grade (0 to 4, or "
    "No_DR, Mild, Moderate, Severe, Proliferate_DR)."
)

ALIASES = {
    "image": (
        "image",
        "image_id",
        "imageid",
        "image_name",
        "imagename",
        "id_code",
        "filename",
        "file_name",
        "file",
        "path",
        "img",
        "id",
    ),
    "grade": ("grade", "level", "diagnosis", "label", "dr_grade", "retinopathy_grade", "dr", "class"),
    "patient": ("patient_id", "patient", "patientid", "subject", "subject_id"),
    "eye": ("eye", "laterality", "side"),
}
"""Column names of the `folder` source, in order of preference; compared in lower case, blanks as
underscores."""

GRADE_FOLDERS = {
    "nodr": 0,
    "normal": 0,
    "healthy": 0,
    "mild": 1,
    "moderate": 2,
    "severe": 3,
    "proliferate": 4,
    "proliferative": 4,
    "proliferatedr": 4,
    "proliferativedr": 4,
    "pdr": 4,
}
"""Names of folders that hold one grade each, letters only and in lower case; digits (``0`` or ``0_...``) also
count."""


def read(reading: Reading) -> None:
    """Read the one table that has image and grade columns, else one folder per grade."""
    tables = [path for path in sorted(reading.root.glob("*.csv")) if not path.name.startswith(".")]
    candidates = []
    for path in tables:
        trial = Reading(reading.name, reading.root, reading.prefix, reading.layout)
        table = read_csv(path, trial)
        names = {key: _column(table, aliases) for key, aliases in ALIASES.items()}
        if names["image"] and names["grade"]:
            candidates.append((path, table, names, trial))
    if len(candidates) > 1:
        listed = ", ".join(path.name for path, *_ in candidates)
        raise SourceError(
            f"{paths.show(reading.root)} holds {len(candidates)} label files ({listed}): leave only one "
            "there."
        )
    if candidates:
        _read_table(reading, *candidates[0])
    else:
        _read_folders(reading, [path.name for path in tables])


def _read_table(
    reading: Reading, path: Path, table: pd.DataFrame, names: dict[str, str], trial: Reading
) -> None:
    reading.problems += trial.problems
    reading.notes += trial.notes
    used = ", ".join(f"{key} from {name!r}" for key, name in names.items() if name)
    reading.notes.append(f"Read {path.name}: {used}.")
    if not names["patient"]:
        reading.notes.append(
            "No patient column: the patient is read from names like 12_left, else each image is its own "
            "patient."
        )
    files = scan(reading, "")
    patients = set(table[names["patient"]]) - {""} if names["patient"] else set()
    for row in table.to_dict("records"):
        name = row[names["image"]].replace("\\", "/")
        stem = Path(name).stem if name.lower().endswith(IMAGE_SUFFIXES) else name
        guess = patient_and_eye(stem)
        patient = row[names["patient"]] if names["patient"] else guess["patient"]
        eye = row[names["eye"]] if names["eye"] else guess["eye"]
        if names["patient"] and not patient:
            patient, eye = _of_known_patient(reading, name, stem, patients, eye)
        add(reading, files, name, row[names["grade"]], patient=patient, eye=eye)
    name_unlabelled(reading, files)


def _of_known_patient(
    reading: Reading, name: str, stem: str, patients: set[str], eye: str
) -> tuple[str, str]:
    """Patient and eye of a row without a patient: those of its name, if the table has this patient.

    Otherwise a fellow eye could stand on another side of a split, because its row lacks the patient.
    """
    match = NAME_WITH_SIDE.match(stem)
    if match is None or match["patient"] not in patients:
        return "", eye
    reading.problems.append(
        (
            reading.show(name),
            "patient missing in the table",
            "used: the patient of its name, who has other rows",
        )
    )
    return match["patient"], eye or match["eye"]


def _read_folders(reading: Reading, tables: list[str]) -> None:
    grades = {
        path.name: grade
        for path in sorted(reading.root.iterdir())
        if path.is_dir() and (grade := _grade_of_folder(path.name)) is not None
    }
    if not grades:
        seen = f" Its CSV files ({', '.join(tables)}) have no image and grade columns." if tables else ""
        raise SourceError(
            f"{paths.show(reading.root)} has neither a label file nor one folder a grade.{seen} "
            f"{reading.layout}"
        )
    reading.notes.append(
        "Grades from folders: " + ", ".join(f"{name!r} is {grade}" for name, grade in grades.items()) + "."
    )
    listed = {name: scan(reading, name) for name in grades}
    stems = [stem for files in listed.values() for stem in files.by_stem]
    repeated = len(stems) != len(set(stems))
    if repeated:
        reading.notes.append(
            "Some file names occur in several grade folders: the folder's name is put before each id."
        )
    for name, grade in grades.items():
        for stem in sorted(listed[name].by_stem):
            add(
                reading,
                listed[name],
                stem,
                str(grade),
                image_id=f"{name}_{stem}" if repeated else stem,
                **patient_and_eye(stem),
            )
    for path in sorted(reading.root.iterdir()):
        if path.name not in grades and path.name not in tables and not path.name.startswith("."):
            reading.problems.append(
                (reading.show(path.name), "not one of the grade folders", manifests.IGNORED)
            )


def _column(table: pd.DataFrame, aliases: Iterable[str]) -> str:
    names = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in table}
    return next((names[alias] for alias in aliases if alias in names), "")


def _grade_of_folder(name: str) -> int | None:
    digit = re.match(r"^([0-4])(?:$|[\s_.-])", name)
    return int(digit[1]) if digit else GRADE_FOLDERS.get(re.sub(r"[^a-z]", "", name.lower()))
