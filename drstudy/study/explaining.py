"""Photographs from outside the study, explained by one of its networks: what ``drstudy explain`` writes.

Each photograph has a folder of its own, which appears as a whole or not at all. Nothing is overwritten that this module did not make, or
that was changed since. **Research only, not a medical device.**
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drstudy.core import paths, records
from drstudy.core.names import GRADE_NAMES, PROBABILITIES
from drstudy.data.photograph import Photograph, Refused, read
from drstudy.data.sources.base import IMAGE_SUFFIXES
from drstudy.study import explanations, networks
from drstudy.study.explanations import INDEX, MADE_BY, NOTICE, TABLE, WHOLE

if TYPE_CHECKING:
    from drstudy.explain.one import Explained
    from drstudy.study.networks import Network

CALIBRATED = [f"calibrated_{name}" for name in PROBABILITIES]
COLUMNS = [
    *("name", "file", "status", "reason", "predicted", "predicted_name", "score", "p_referable"),
    *PROBABILITIES,
    *CALIBRATED,
    *("outlines", *networks.MEASURES, "remarks", "file_sha256"),
]
"""Columns of the table of all photographs. ``p0`` to ``p4`` are the network's own probabilities of the grades, ``calibrated_p0`` to
``calibrated_p4`` those at the temperature fitted on validation eyes. ``p_referable`` is the probability of grade 2 or more, calibrated if
possible. A network that regresses the grade fills ``score`` instead of these."""

EXPLAINED, REFUSED = "explained", "refused"

BUILDING = ".explaining-"
"""Beginning of the name of an unfinished folder; the number of its process follows."""


class InputError(ValueError):
    """What was given cannot be explained as a whole: a path is missing, or a folder has no photograph."""


@dataclass(frozen=True)
class Given:
    """A file to explain, and the name of its folder in the output."""

    name: str
    path: Path


@dataclass(frozen=True)
class Outcome:
    """What was made.

    Attributes:
        output: Folder of the output.
        rows: One row per file of this run, with :data:`COLUMNS`, in the order of the files.
    """

    output: Path
    rows: tuple[dict[str, Any], ...]

    @property
    def refused(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["status"] == REFUSED]


# --- what is explained ------------------------------------------------------------------------------------


def gather(inputs: Sequence[str | os.PathLike[str]]) -> list[Given]:
    """The files of a command, each once: files as they are given, folders by the photographs in and below them.

    A file is named by its stem; files of one run with the same stem get a part of the digest of their path behind it.

    Raises:
        InputError: If a path does not exist, or a folder has no file with the suffix of a photograph.
    """
    files: dict[Path, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            found = [
                folder / name
                for folder, _, names in paths.walk(given)
                for name in names
                if name.lower().endswith(IMAGE_SUFFIXES)
            ]
            if not found:
                raise InputError(
                    f"{given} has no photograph ({', '.join(IMAGE_SUFFIXES)}). Give a folder with photographs, or files."
                )
        elif given.exists():
            found = [given]
        else:
            raise InputError(f"{given}: there is no such file or folder. Check the path.")
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        raise InputError("Nothing to explain: give files, or folders with photographs.")
    stems = {file: _safe(file.stem) for file in files}
    often = Counter(stem.lower() for stem in stems.values())
    return [
        Given(stem if often[stem.lower()] == 1 else f"{stem}-{_digest(os.fspath(file))}", files[file])
        for file, stem in stems.items()
    ]


def _safe(stem: str) -> str:
    """A stem as the name of a folder on any system."""
    return re.sub(r"[^\w.-]+", "_", stem).strip("._") or "photograph"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# --- the run ----------------------------------------------------------------------------------------------


def run(
    inputs: Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    device: str = "auto",
    threads: int = 0,
    told: Callable[[int, int, dict[str, Any]], None] = lambda done, total, row: None,
) -> Outcome:
    """Explain photographs, or refuse them one by one, and write what was found.

    For each photograph ``<output>/<name>/`` has ``page.html``, ``photograph.png`` (the crop that the network saw), ``map.png``,
    ``outlines.png`` and ``explanation.json`` with the probabilities, the map in its own units, and the outlines as polygons.
    ``<output>/`` has ``explanations.csv`` and ``explanations.json`` of all, and ``index.html``.

    Args:
        inputs: Files and folders.
        model: Result folder of a finished training.
        output: Folder of the output; made if it is not there.
        device, threads: As of :func:`drstudy.core.devices.setup`.
        told: Called after each photograph with its number, the number of all, and its row.

    Raises:
        InputError: As :func:`gather`.
        drstudy.study.networks.ModelError, drstudy.core.records.RecordError: If there is no such network.
        drstudy.study.explanations.OverwriteError: If something in the output was not made here, was changed since, or is of another
            network. Nothing has been written then.
    """
    given, output = gather(inputs), Path(output)
    network = networks.load(model, device, threads)
    explanations.check(output, {one.name: one.path for one in given}, network.sha256)
    output.mkdir(parents=True, exist_ok=True)
    _sweep(output)
    rows = []
    for number, one in enumerate(given, 1):
        rows.append(_one(one, network, output))
        told(number, len(given), rows[-1])
    _write_all(output, rows, network)
    return Outcome(output, tuple(rows))


def _one(given: Given, network: Network, output: Path) -> dict[str, Any]:
    """Explain or refuse one file; the row of the table."""
    target = output / given.name
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"name": given.name, "file": os.fspath(given.path)}
    try:
        photograph = read(given.path, network.image_size, network.max_megapixels)
    except Refused as refusal:
        shutil.rmtree(target, ignore_errors=True)  # of an earlier version of the file, checked to be ours
        row |= {name: refusal.measured.get(name, "") for name in (*networks.MEASURES, "file_sha256")}
        return row | {"status": REFUSED, "reason": str(refusal), "remarks": refusal.remedy}
    found = network.explainer.answer(photograph.image)
    row |= {name: photograph.facts[name] for name in (*networks.MEASURES, "file_sha256")}
    row |= _answer(found) | {"status": EXPLAINED, "remarks": "; ".join(remarks(photograph, network))}
    with tempfile.TemporaryDirectory(prefix=f"{BUILDING}{os.getpid()}-", dir=output) as folder:
        made = Path(folder, "made")
        made.mkdir()
        explanations.write_one(made, row, photograph, found, network)
        _replace(made, target)
    return row


def _sweep(output: Path) -> None:
    """Remove what a run that was killed left unfinished."""
    for folder in output.glob(f"{BUILDING}*"):
        process = folder.name.removeprefix(BUILDING).partition("-")[0]
        if process.isdecimal() and not paths.lives(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _replace(made: Path, target: Path) -> None:
    """Put a finished folder in its place; an earlier one, which was checked to be ours, goes."""
    if target.exists():
        earlier = made.with_name("earlier")
        target.rename(earlier)
    made.rename(target)


def _answer(found: Explained) -> dict[str, Any]:
    """What the network says, as columns of the table."""
    answer = {
        "predicted": found.predicted,
        "predicted_name": GRADE_NAMES[found.predicted],
        "outlines": len(found.outlines) if found.status else "",
    }
    if found.score is not None:
        answer["score"] = found.score
    if found.probabilities is not None:
        answer |= {"p_referable": found.referable, **dict(zip(PROBABILITIES, found.probabilities.tolist()))}
    if found.calibrated is not None:
        answer |= dict(zip(CALIBRATED, found.calibrated.tolist()))
    return answer


def remarks(photograph: Photograph, network: Network) -> list[str]:
    """What a reader must know of this photograph beside the answer: how its file was used, and where it is unlike what was learnt."""
    from drstudy.explain import one

    unlike = one.outside_range(photograph.facts, network.seen, networks.MEASURES)
    told = [f"unlike the photographs that the network learnt: {', '.join(unlike)}"] if unlike else []
    return [*photograph.remarks, *told]


def _write_all(output: Path, rows: Sequence[dict[str, Any]], network: Network) -> None:
    """Write the tables and the list of all photographs of the folder: those of this run, and those that earlier runs explained."""
    names = {row["name"] for row in rows}
    earlier = [row for row in explanations.rows(output) if row["name"] not in names]
    whole = sorted([*rows, *earlier], key=lambda row: row["name"])
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(whole)
    content = {
        "made_by": MADE_BY,
        "notice": NOTICE,
        "network": explanations.about(network),
        "photographs": whole,
    }
    with paths.atomic(output / TABLE) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
    with paths.atomic(output / INDEX) as temporary:
        temporary.write_text(explanations.index(whole, network), encoding="utf-8")
    records.write_json(content, output / WHOLE)
