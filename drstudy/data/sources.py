"""Sources: from a data set as it is distributed to the manifest, with every file or line that had to be left
out.

Nothing is decoded here; the pictures themselves are judged where they are read (:mod:`drstudy.data.images`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.manifest import GRADES

if TYPE_CHECKING:
    from drstudy.core.params import Parameters

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".gif")
NAME_WITH_EYE = re.compile(r"^(?P<patient>.+)_(?P<eye>left|right)$", re.IGNORECASE)

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

EYES = {"left": "left", "l": "left", "os": "left", "right": "right", "r": "right", "od": "right", "": ""}


class SourceError(ValueError):
    """A folder that is not the data set that it was said to be, with the layout that is expected."""


@dataclass(frozen=True)
class Source:
    """A data set as read.

    Attributes:
        name: phantom, eyepacs, aptos, idrid or folder.
        root: Its folder.
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
class _Reading:
    """What a reader gathers on its way: rows that may be used, problems and notes."""

    name: str
    root: Path
    prefix: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def exclude(self, file: str, problem: str) -> None:
        self.problems.append((file, problem, manifests.EXCLUDED))

    def show(self, path: str) -> str:
        """A path relative to the data set's root as manifests write it."""
        return f"{self.prefix}/{path}"


def load(source: str, root: str | os.PathLike[str]) -> Source:
    """Read a data set's labels and list its files.

    Args:
        source: ``phantom``, ``eyepacs``, ``aptos``, ``idrid`` or ``folder``.
        root: Its folder, as a parameter writes it (:func:`drstudy.core.paths.resolve`).

    Returns:
        The manifest and all problems. Two rows with one id: equal labels keep the first; different labels
        leave out both, as nothing says which is right.

    Raises:
        SourceError: If the source is unknown, the folder is missing, or it has not the source's layout.
    """
    if source not in READERS:
        raise SourceError(f"There is no source {source!r}; there are {', '.join(READERS)}.")
    folder = paths.resolve(root)
    if not os.fspath(root) or not folder.is_dir():
        raise SourceError(f"DATA_ROOT {os.fspath(root)!r} is not a folder. {LAYOUTS[source]}")
    reading = _Reading(source, folder, paths.show(folder))
    READERS[source](reading)
    rows = _settle_repeats(reading)
    return Source(
        source, folder, manifests.build(rows), manifests.problems(reading.problems), tuple(reading.notes)
    )


def of(parameters: Parameters) -> Source:
    """The data set that the parameters name; a phantom without a folder of its own is rendered first.

    Raises:
        SourceError: As :func:`load`.
    """
    if parameters.source == "phantom" and not parameters.data_root:
        return load("phantom", prepare_phantom(parameters))
    return load(parameters.source, parameters.data_root)


def prepare_phantom(parameters: Parameters) -> Path:
    """The phantom that these parameters describe, rendered under ``data/phantom/`` where it is missing.

    Returns:
        Its folder, which is named by what makes it.
    """
    from drstudy.data import phantom
    from drstudy.data.images import locked

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
    with locked(folder.with_suffix(".lock")):
        return phantom.write(config, folder, parameters.workers or os.cpu_count() or 1)


# --- readers, one a layout ------------------------------------------------------------------------


def _phantom(reading: _Reading) -> None:
    table = read_csv(_needed(reading, "labels.csv"), reading)
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
        _add(reading, files, name, row["grade"], patient=row["patient_id"], eye=row["eye"], **extra)
    _name_extras(reading, files)


def _eyepacs(reading: _Reading) -> None:
    table = read_csv(_needed(reading, "trainLabels.csv"), reading)
    _needs_columns(reading, table, "trainLabels.csv", "image", "level")
    files = scan(reading, "train")
    for row in table.to_dict("records"):
        name = Path(row["image"]).stem if row["image"].lower().endswith(IMAGE_SUFFIXES) else row["image"]
        _add(reading, files, name, row["level"], **_patient_and_eye(name))
    _name_extras(reading, files)


def _aptos(reading: _Reading) -> None:
    table = read_csv(_needed(reading, "train.csv"), reading)
    _needs_columns(reading, table, "train.csv", "id_code", "diagnosis")
    files = scan(reading, "train_images")
    reading.notes.append(
        "APTOS names no patients: each image counts as its own patient, so a split cannot keep fellow eyes "
        "together."
    )
    for row in table.to_dict("records"):
        _add(reading, files, row["id_code"], row["diagnosis"])
    _name_extras(reading, files)


IDRID_MASKS = {"MA": "MA", "HE": "HE", "EX": "EX", "SE": "SE", "OD": "DISC"}


def _idrid(reading: _Reading) -> None:
    segmentation, grading = reading.root / "A. Segmentation", reading.root / "B. Disease Grading"
    if not segmentation.is_dir() and not grading.is_dir():
        raise SourceError(
            f"{paths.show(reading.root)} holds neither 'A. Segmentation' nor 'B. Disease Grading'. "
            f"{LAYOUTS['idrid']}"
        )
    reading.notes.append("IDRiD names no patients: each image counts as its own patient.")
    if segmentation.is_dir():
        _idrid_segmentation(reading)
    if grading.is_dir():
        _idrid_grading(reading)
    else:
        reading.notes.append(
            "Only IDRiD's segmentation part is here: the images have lesion masks but no grade."
        )


def _idrid_segmentation(reading: _Reading) -> None:
    truths = "A. Segmentation/2. All Segmentation Groundtruths"
    files = scan(reading, "A. Segmentation/1. Original Images")
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((reading.root / truths).rglob("*")):
        if path.suffix.lower() not in (".tif", ".tiff", ".png"):
            continue
        stem, _, code = path.stem.rpartition("_")
        relative = path.relative_to(reading.root).as_posix()
        if code not in IDRID_MASKS or stem not in files.by_stem:
            reading.problems.append(
                (reading.show(relative), "mask without an image, or of an unknown kind", manifests.IGNORED)
            )
            continue
        found[stem][f"mask_{IDRID_MASKS[code]}"] = reading.show(relative)
    for stem in sorted(files.by_stem):
        masks = found[stem]
        lesions = {f"lesion_{code}": int(f"mask_{code}" in masks) for code in ("MA", "HE", "EX", "SE")}
        _add(reading, files, stem, None, **masks, **lesions)


def _idrid_grading(reading: _Reading) -> None:
    tables = sorted((reading.root / "B. Disease Grading" / "2. Groundtruths").glob("*.csv"))
    if not tables:
        raise SourceError(f"'B. Disease Grading/2. Groundtruths' holds no CSV. {LAYOUTS['idrid']}")
    for path in tables:
        testing = "test" in path.stem.lower()
        part = "b. Testing Set" if testing else "a. Training Set"
        files = scan(reading, f"B. Disease Grading/1. Original Images/{part}")
        table = read_csv(path, reading)
        _needs_columns(reading, table, path.name, "Image name", "Retinopathy grade")
        for row in table.to_dict("records"):
            # both parts count from IDRiD_001, so the part belongs to the id
            image_id = row["Image name"].replace("IDRiD", "IDRiD_test" if testing else "IDRiD_train")
            _add(reading, files, row["Image name"], row["Retinopathy grade"], image_id=image_id)
        _name_extras(reading, files)


def _folder(reading: _Reading) -> None:
    tables = [path for path in sorted(reading.root.glob("*.csv")) if not path.name.startswith(".")]
    candidates = []
    for path in tables:
        trial = _Reading(reading.name, reading.root, reading.prefix)
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
        _folder_with_csv(reading, *candidates[0])
    else:
        _folder_a_grade(reading, [path.name for path in tables])


def _folder_with_csv(
    reading: _Reading, path: Path, table: pd.DataFrame, names: dict[str, str], trial: _Reading
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
    for row in table.to_dict("records"):
        name = row[names["image"]].replace("\\", "/")
        guess = _patient_and_eye(Path(name).stem if name.lower().endswith(IMAGE_SUFFIXES) else name)
        patient = row[names["patient"]] if names["patient"] else guess["patient"]
        eye = row[names["eye"]] if names["eye"] else guess["eye"]
        _add(reading, files, name, row[names["grade"]], patient=patient, eye=eye)
    _name_extras(reading, files)


def _folder_a_grade(reading: _Reading, tables: list[str]) -> None:
    grades = {
        path.name: grade
        for path in sorted(reading.root.iterdir())
        if path.is_dir() and (grade := _grade_of_folder(path.name)) is not None
    }
    if not grades:
        seen = f" Its CSV files ({', '.join(tables)}) have no image and grade columns." if tables else ""
        raise SourceError(
            f"{paths.show(reading.root)} has neither a label file nor one folder a grade.{seen} "
            f"{LAYOUTS['folder']}"
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
            _add(
                reading,
                listed[name],
                stem,
                str(grade),
                image_id=f"{name}_{stem}" if repeated else stem,
                **_patient_and_eye(stem),
            )
    for path in sorted(reading.root.iterdir()):
        if path.name not in grades and path.name not in tables and not path.name.startswith("."):
            reading.problems.append(
                (reading.show(path.name), "not one of the grade folders", manifests.IGNORED)
            )


READERS: dict[str, Callable[[_Reading], None]] = {
    "phantom": _phantom,
    "eyepacs": _eyepacs,
    "aptos": _aptos,
    "idrid": _idrid,
    "folder": _folder,
}

LAYOUTS = {
    "phantom": "A phantom has labels.csv, images/ and masks/; leave DATA_ROOT empty to have one made.",
    "eyepacs": "The Kaggle set (EyePACS) has trainLabels.csv (image,level) and "
    "train/<patient>_<left|right>.jpeg, unpacked.",
    "aptos": "APTOS 2019 has train.csv (id_code,diagnosis) and train_images/<id>.png, unpacked.",
    "idrid": "IDRiD has 'A. Segmentation' with '1. Original Images' and '2. All Segmentation Groundtruths', "
    "and 'B. Disease Grading'.",
    "folder": "A folder has one CSV with an image and a grade column, or one folder a grade (0 to 4, or "
    "No_DR, Mild, Moderate, Severe, Proliferate_DR).",
}


# --- helpers --------------------------------------------------------------------------------------


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


def scan(reading: _Reading, folder: str) -> Files:
    """List the image files below a folder of the data set, as they stream from the directory; hidden files
    are skipped.

    Raises:
        SourceError: If the folder is missing.
    """
    base = reading.root / folder
    if not base.is_dir():
        packed = [path.name for path in sorted(reading.root.glob("*.zip*"))]
        hint = f" {', '.join(packed[:3])} must be unpacked first." if packed else ""
        raise SourceError(f"{reading.show(folder)} is missing.{hint} {LAYOUTS[reading.name]}")
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


def _add(
    reading: _Reading,
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


def _settle_repeats(reading: _Reading) -> list[dict[str, Any]]:
    """One row an id: repeats with the same label and file are dropped, ids with different ones are left out
    whole."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in reading.rows:
        groups[row["image_id"]].append(row)
    kept = []
    for image_id, rows in groups.items():
        labels = {row["grade"] for row in rows}
        files = {row["path"] for row in rows}
        if len(labels) > 1:
            values = ", ".join(str(row["grade"]) for row in rows)
            reading.exclude(
                rows[0]["path"], f"id {image_id!r} occurs {len(rows)} times with different labels ({values})"
            )
            continue
        if len(files) > 1:
            reading.exclude(
                rows[0]["path"],
                f"id {image_id!r} names {len(files)} different files: {', '.join(sorted(files))}",
            )
            continue
        if len(rows) > 1:
            reading.problems.append(
                (
                    rows[0]["path"],
                    f"id {image_id!r} occurs {len(rows)} times with the same label",
                    "used: once",
                )
            )
        kept.append(rows[0])
    return kept


def _name_extras(reading: _Reading, files: Files) -> None:
    for listed in files.by_stem.values():
        for path in listed:
            if path not in files.used:
                reading.exclude(reading.show(path), "no label: there is an image but no row for it")


def read_csv(path: Path, reading: _Reading) -> pd.DataFrame:
    """A table of strings, whatever its byte-order mark, encoding and delimiter; lines that do not fit are
    named.

    Raises:
        SourceError: If it is empty.
    """
    name = reading.show(path.relative_to(reading.root).as_posix())
    content = path.read_bytes()
    text, encoding = _decode(content)
    if encoding != "utf-8":
        reading.problems.append((name, f"text is {encoding}, not plain UTF-8", "used: read as such"))
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count) if first else ","
    if delimiter != ",":
        reading.problems.append(
            (name, f"columns are separated by {delimiter!r}, not by commas", "used: read as such")
        )
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    numbered = [(number, line) for number, line in enumerate(lines, 1) if any(cell.strip() for cell in line)]
    if len(numbered) < 2:
        raise SourceError(f"{name} holds no rows. {LAYOUTS[reading.name]}")
    header = [cell.strip() for cell in numbered[0][1]]
    rows = []
    for number, line in numbered[1:]:
        overhang = any(cell.strip() for cell in line[len(header) :])
        if len(line) < len(header) or overhang:
            reading.exclude(
                f"{name}, line {number}", f"{len(line)} columns where the heading has {len(header)}"
            )
            continue
        rows.append([cell.strip() for cell in line[: len(header)]])
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    return frame.loc[:, [bool(column) for column in header]]


def _decode(content: bytes) -> tuple[str, str]:
    for mark, encoding, label in (
        (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8 with a byte-order mark"),
        (b"\xff\xfe", "utf-16", "UTF-16"),
        (b"\xfe\xff", "utf-16", "UTF-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding), label
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "Latin-1"


def _needed(reading: _Reading, name: str) -> Path:
    path = reading.root / name
    if not path.is_file():
        raise SourceError(f"{reading.show(name)} is missing. {LAYOUTS[reading.name]}")
    return path


def _needs_columns(reading: _Reading, table: pd.DataFrame, file: str, *names: str) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        raise SourceError(
            f"{file} has no column {', '.join(missing)}; it has {', '.join(table)}. {LAYOUTS[reading.name]}"
        )


def _column(table: pd.DataFrame, aliases: Iterable[str]) -> str:
    names = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in table}
    return next((names[alias] for alias in aliases if alias in names), "")


def _patient_and_eye(stem: str) -> dict[str, str]:
    match = NAME_WITH_EYE.match(stem)
    return {"patient": match["patient"], "eye": match["eye"].lower()} if match else {"patient": "", "eye": ""}


def _grade_of_folder(name: str) -> int | None:
    digit = re.match(r"^([0-4])(?:$|[\s_.-])", name)
    return int(digit[1]) if digit else GRADE_FOLDERS.get(re.sub(r"[^a-z]", "", name.lower()))
