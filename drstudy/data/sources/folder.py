"""Any folder of images: with one table of labels, or with one folder per grade."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources.base import (
    Reading,
    SourceError,
    add,
    name_unlabelled,
    patient_and_eye,
    scan,
    stem,
    walk,
)
from drstudy.data.sources.identity import SIDES
from drstudy.data.sources.tables import need_columns, read_csv

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
    "grade": (
        "grade",
        "level",
        "diagnosis",
        "label",
        "dr_grade",
        "retinopathy_grade",
        "adjudicated_dr_grade",
        "dr",
        "class",
    ),
    "patient": ("patient_id", "patient", "patientid", "subject", "subject_id"),
    "eye": ("eye", "laterality", "side"),
}
"""Column names of the `folder` source, in order of preference; compared in lower case, blanks as
underscores."""

GRADE_FOLDERS = {
    "no": 0,
    "none": 0,
    "normal": 0,
    "healthy": 0,
    "absent": 0,
    "noapparent": 0,
    "mild": 1,
    "moderate": 2,
    "severe": 3,
    "proliferate": 4,
    "proliferative": 4,
    "pdr": 4,
    "proliferativepdr": 4,
}
"""Names of folders that hold one grade each, letters only, in lower case and without the words of :data:`DISEASE`."""
DISEASE = re.compile(
    r"(nonproliferative)?(diabeticretinopathy|retinopathy)|nonproliferative(dr)?|(?<!^)npdr|(?<!^)(?<!p)dr|(eye|retina|fundus)s?$"
)
"""Words for the disease behind a grade."""
NUMBERED = re.compile(r"^(?:(?:grade|class|level|stage|dr)[\s_.-]*)?([0-4])(?:$|[\s_.-])", re.IGNORECASE)


def read(reading: Reading) -> None:
    """Read the one table that has image and grade columns, else one folder per grade."""
    tables = [
        path
        for path in sorted(reading.root.iterdir())
        if path.suffix.lower() == ".csv"
        and not path.name.startswith(".")
        and path.name not in reading.ignored
    ]
    candidates, unread = [], []
    for path in tables:
        trial = Reading(reading.name, reading.root, reading.prefix, reading.layout)
        try:
            table = read_csv(path, trial)
        except SourceError as error:
            unread.append((reading.show(path.name), str(error)))
            continue
        names = {key: _column(table, aliases) for key, aliases in ALIASES.items()}
        if names["image"] and names["grade"]:
            candidates.append((path, table, names, trial))
    if len(candidates) > 1:
        listed = ", ".join(path.name for path, *_ in candidates)
        raise SourceError(
            f"{paths.show(reading.root)} holds {len(candidates)} label files ({listed}): leave only one "
            "there."
        )
    for file, error in unread:
        reading.problems.append((file, f"cannot be read as a table ({error})", manifests.IGNORED))
    if candidates:
        _read_table(reading, *candidates[0])
    else:
        _read_folders(reading, tables)


def _read_table(
    reading: Reading, path: Path, table: pd.DataFrame, names: dict[str, str], trial: Reading
) -> None:
    need_columns(reading, table, path.name, *(name for name in names.values() if name))
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
        guess = _identity(reading, name)
        if names["patient"] and not guess["patient"] and not reading.pattern:
            guess = _of_known_patient(name, patients)
        patient = (row[names["patient"]] if names["patient"] else "") or guess["patient"]
        eye = (row[names["eye"]] if names["eye"] else "") or guess["eye"]
        if names["patient"] and guess["patient"] and not row[names["patient"]]:
            reading.problems.append(
                (reading.show(name), "the table names no patient", f"used: {patient} from the name")
            )
        if names["eye"] and guess["eye"] and SIDES.get(eye.lower(), guess["eye"]) != guess["eye"]:
            reading.problems.append(
                (
                    reading.show(name),
                    f"the column {names['eye']!r} and the name contradict each other",
                    f"used: {eye} from the column",
                )
            )
        add(reading, files, name, row[names["grade"]], patient=patient, eye=eye)
    name_unlabelled(reading, files)


def _of_known_patient(name: str, patients: set[str]) -> dict[str, str]:
    """Patient and eye of a name that no scheme knows, such as ``Smith_L``, if the table has this patient in other rows.

    Otherwise a fellow eye could stand on another side of a split, because its row lacks the patient.
    """
    match = NAME_WITH_SIDE.match(stem(name))
    if match is None or match["patient"] not in patients:
        return {"patient": "", "eye": ""}
    return {"patient": match["patient"], "eye": SIDES[match["eye"].lower()]}


def _identity(reading: Reading, name: str) -> dict[str, str]:
    """Patient and eye from a name, or with its folder in front, as in ``P007/left.jpg``."""
    guess = patient_and_eye(reading, stem(name))
    if guess["patient"] or reading.pattern or "/" not in name:
        return guess
    return (
        patient_and_eye(reading, f"{Path(name).parent.name}_{stem(name)}")
        if stem(name).lower() in SIDES
        else guess
    )


def _read_folders(reading: Reading, tables: list[Path]) -> None:
    folders = [
        path
        for path in sorted(reading.root.iterdir())
        if path.is_dir() and not path.name.startswith(".") and path.name not in reading.ignored
    ]
    grades = {path.name: grade for path in folders if (grade := grade_of_folder(path.name)) is not None}
    unknown = [
        path.name for path in folders if path.name not in grades and next(walk(reading, path.name), None)
    ]
    if not grades:
        seen = "".join(f" {path.name} has the columns {_columns(reading, path)}." for path in tables)
        raise SourceError(
            f"{paths.show(reading.root)} has neither a label file nor one folder a grade.{seen} "
            f"{reading.layout}"
        )
    if unknown:
        read = ", ".join(f"{name} is {grade}" for name, grade in grades.items())
        raise SourceError(
            f"{paths.show(reading.root)}: these folders have photographs, but their names are no grade: {', '.join(unknown)} ({read}). "
            "Rename them, or leave them out by IGNORE (--ignore)."
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
        for path in sorted(path for found in listed[name].by_stem.values() for path in found):
            add(
                reading,
                listed[name],
                path,
                str(grade),
                image_id=f"{name}_{Path(path).stem}" if repeated else Path(path).stem,
                **_identity(reading, path),
            )
    for path in sorted(reading.root.iterdir()):
        if path.name not in grades and path not in tables and not path.name.startswith("."):
            reading.problems.append(
                (reading.show(path.name), "not one of the grade folders", manifests.IGNORED)
            )


def _column(table: pd.DataFrame, aliases: Iterable[str]) -> str:
    names = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in table}
    return next((names[alias] for alias in aliases if alias in names), "")


def _columns(reading: Reading, path: Path) -> str:
    try:
        return ", ".join(read_csv(path, Reading(reading.name, reading.root, reading.prefix, reading.layout)))
    except SourceError as error:
        return f"(none: {error})"


def grade_of_folder(name: str) -> int | None:
    """The grade that a folder's name says, by number or by word; ``None`` if it says none.

    Raises:
        SourceError: If number and word contradict each other.
    """
    digit = NUMBERED.match(name)
    letters = re.sub(r"[^a-z]", "", name.lower())
    word = GRADE_FOLDERS.get(letters, GRADE_FOLDERS.get(DISEASE.sub("", letters)))
    if digit and word is not None and word != int(digit[1]):
        raise SourceError(f"The folder {name!r} says grade {digit[1]} and grade {word}: rename it.")
    return int(digit[1]) if digit else word
