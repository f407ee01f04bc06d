"""What every layout needs: a data set as read, its files by name, and one labelled image at a time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from drstudy.core import paths
from drstudy.core.names import GRADES
from drstudy.data import manifest as manifests
from drstudy.data.sources.identity import SIDES, normal, of_name

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".ppm", ".gif")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf", re.ASCII)
"""What a grade may look like; Python would also read ``0_2``."""
MOST_LOST = 0.2
"""Default of the share of rows and files of a data set that may be left out."""
SKIPPED_FOLDERS = ("__MACOSX",)
"""Folders that an archive program leaves beside the data."""


class SourceError(ValueError):
    """A folder that does not have the layout of the named data set; the message gives the expected layout."""


@dataclass(frozen=True)
class Source:
    """A data set as read.

    Attributes:
        name: phantom, eyepacs, aptos, idrid, diaretdb1, odir, folder or pooled.
        root: Folder of the data set.
        manifest: See :mod:`drstudy.data.manifest`; rows whose file exists and whose label can be used.
        problems: Columns file, problem, action: what was left out or noticed, one row each.
        notes: Sentences about the whole set that a reader must know.
        most_lost: Share of the rows and files that may be left out; see :func:`losses`.
    """

    name: str
    root: Path
    manifest: pd.DataFrame
    problems: pd.DataFrame
    notes: tuple[str, ...] = ()
    most_lost: float = 1.0


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
        pattern: Regular expression for patient and eye in the name of an image; empty means the known schemes.
        ignored: Names directly below the root that are left out by wish.
        unknown: Paths of images whose patient is not known.
    """

    name: str
    root: Path
    prefix: str
    layout: str
    pattern: str = ""
    ignored: tuple[str, ...] = ()
    votes: int = 3
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def exclude(self, file: str, problem: str) -> None:
        """Record a file or a line of a table that cannot be used."""
        self.problems.append((file, problem, manifests.EXCLUDED))

    def show(self, path: str) -> str:
        """A path relative to the data set's root as manifests write it."""
        return f"{self.prefix}/{path}"


@dataclass
class Files:
    """Image files below a folder, by their names in the normal form; ``used`` grows as labels claim them.

    Attributes:
        folder: The folder, relative to the data set.
        root: Name of the data set's own folder, which labels may write before a path.
        by_stem: Name without suffix to paths, relative to the data set.
        by_name: Name with suffix to paths.
        used: Paths that labels have claimed.
    """

    folder: str
    root: str
    by_stem: dict[str, list[str]]
    by_name: dict[str, list[str]]
    used: set[str] = field(default_factory=set)

    def find(self, name: str) -> list[str]:
        """Files (relative to the data set) that a label's name means.

        A name with a folder means a file in that folder only. A name without a suffix means any file of that stem; a name
        with a suffix that no file has means the file with another suffix, which the caller must tell.
        """
        wanted = normal(name).removeprefix("./")
        base = wanted.rpartition("/")[2]
        stem = base.rpartition(".")[0] if base.endswith(IMAGE_SUFFIXES) else base
        named = [path for path in self.by_name.get(base, []) if self._is_in(path, wanted)]
        exact = [path for path in named if path == name or path.endswith(f"/{name}")]
        if named:
            return exact if len(exact) == 1 else named
        folder = wanted[: len(wanted) - len(base)]
        alike = [path for path in self.by_stem.get(stem, []) if self._is_in(path, folder + _base(path))]
        exact = [path for path in alike if Path(path).stem == name.rpartition("/")[2]]
        return exact if len(exact) == 1 else alike

    def _is_in(self, path: str, wanted: str) -> bool:
        whole = f"/{self.root}/{normal(path)}"
        return "/../" not in f"/{wanted}" and whole.endswith(wanted if wanted[:1] == "/" else f"/{wanted}")


def _base(path: str) -> str:
    return normal(path).rpartition("/")[2]


def entry(root: Path, relative: str) -> Path:
    """A file or folder below a root, found in any case and any form of its letters; the plain path if there is none."""
    found = root
    for part in Path(relative).parts:
        exact = found / part
        if not exact.exists() and found.is_dir():
            alike = [file for file in found.iterdir() if normal(file.name) == normal(part)]
            exact = alike[0] if len(alike) == 1 else exact
        found = exact
    return found


def walk(reading: Reading, folder: str) -> Iterator[str]:
    """Image files below a folder of the data set, relative to its root, in order.

    Hidden files are skipped. Links to folders are followed, each folder once. A name that is no UTF-8 text cannot be written into a table:
    the file is left out and named.
    """
    for directory, subfolders, names in paths.walk(entry(reading.root, folder)):
        left_out = {*SKIPPED_FOLDERS, *(reading.ignored if directory == reading.root else ())}
        subfolders[:] = [name for name in subfolders if name not in left_out]
        for name in names:
            if not name.lower().endswith(IMAGE_SUFFIXES):
                continue
            relative = (directory / name).relative_to(reading.root).as_posix()
            if _writable(relative):
                yield relative
            else:
                shown = relative.encode("utf-8", "backslashreplace").decode()
                reading.exclude(reading.show(shown), "its name is no UTF-8 text: rename the file")


def _writable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def scan(reading: Reading, folder: str) -> Files:
    """List the image files below a folder of the data set; see :func:`walk`.

    Raises:
        SourceError: If the folder is missing.
    """
    if not entry(reading.root, folder).is_dir():
        packed = [path.name for path in sorted(reading.root.glob("*.zip*"))]
        hint = f" {', '.join(packed[:3])} must be unpacked first." if packed else ""
        raise SourceError(f"{reading.show(folder)} is missing.{hint} {reading.layout}")
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, list[str]] = defaultdict(list)
    for relative in walk(reading, folder):
        name = _base(relative)
        by_stem[name.rpartition(".")[0]].append(relative)
        by_name[name].append(relative)
    return Files(folder, normal(reading.root.name), dict(by_stem), dict(by_name))


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
    found = files.find(name) if name else []
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
    if (wanted := normal(name).rpartition("/")[2]).endswith(IMAGE_SUFFIXES) and wanted != _base(found[0]):
        reading.problems.append(
            (
                reading.show(found[0]),
                f"the label names {name!r}, which is not there",
                "used: the file of this name with another suffix",
            )
        )
    side = SIDES.get(eye.strip().lower(), None if eye.strip() else "")
    if side is None:
        reading.problems.append(
            (reading.show(found[0]), f"eye {eye!r} is neither left nor right", "used: eye left blank")
        )
    image_id = image_id or Path(found[0]).stem
    if not patient.strip():
        reading.unknown.add(reading.show(found[0]))
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
    if not NUMBER.fullmatch(text):
        return None, f"label {text!r} is not a number"
    number = float(text)
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


def losses(problems: pd.DataFrame, used: int) -> tuple[int, int]:
    """How many rows and files were left out, and of how many.

    Args:
        problems: Columns file, problem, action.
        used: Number of images that are used.
    """
    lost = int((problems["action"] == manifests.EXCLUDED).sum())
    return lost, lost + used


def check_losses(problems: pd.DataFrame, used: int, most_lost: float, where: str) -> None:
    """Refuse a data set of which too much was left out.

    Raises:
        SourceError: With the number of rows and files lost, the commonest reasons, and what to do.
    """
    lost, total = losses(problems, used)
    if lost <= most_lost * total:
        return
    kinds = manifests.problem_kinds(problems.loc[problems["action"] == manifests.EXCLUDED, "problem"])
    reasons = "; ".join(f"{kind} ({count})" for kind, count in kinds.value_counts().head(3).items())
    raise SourceError(
        f"{lost} of {total} rows and files of {where} were left out, more than {most_lost:.0%}: {reasons}. Correct the data, or "
        "set MOST_LOST (--most-lost) to the share that you accept."
    )


def stem(name: str) -> str:
    """A label's name of an image without folders and without the suffix of an image."""
    base = name.strip().replace("\\", "/").rpartition("/")[2]
    return base.rpartition(".")[0] if base.lower().endswith(IMAGE_SUFFIXES) else base


def patient_and_eye(reading: Reading, stem: str) -> dict[str, str]:
    """``patient`` and ``eye`` of a file name like ``12_left``; both empty for any other name."""
    return of_name(stem, reading.pattern)
