"""One entry for all sources: from the name of a layout and a folder to the checked manifest."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources import aptos, diaretdb1, eyepacs, folder, identity, idrid, odir, phantom, pooled
from drstudy.data.sources.base import Reading, Source, SourceError, check_losses

if TYPE_CHECKING:
    from drstudy.core.params import DataAudit

LAYOUTS: dict[str, ModuleType] = {
    "phantom": phantom,
    "eyepacs": eyepacs,
    "aptos": aptos,
    "idrid": idrid,
    "diaretdb1": diaretdb1,
    "odir": odir,
    "folder": folder,
}
"""Name of a source to its module, which has ``read(reading)`` and the sentence ``LAYOUT``."""


def load(
    source: str,
    root: str | os.PathLike[str],
    pattern: str = "",
    ignored: Sequence[str] = (),
    most_lost: float = 1.0,
    votes: int = 3,
) -> Source:
    """Read a data set's labels and list its files.

    Args:
        source: ``phantom``, ``eyepacs``, ``aptos``, ``idrid``, ``diaretdb1``, ``odir``, ``folder`` or ``pooled``.
        root: Folder of the data set, as a parameter writes it (:func:`drstudy.core.paths.resolve`); for ``pooled`` the parts
            (:func:`drstudy.data.sources.pooled.parts`), each of which is read with the same settings.
        pattern: Regular expression for the name of an image, with a group ``patient`` and perhaps ``eye``; empty means the known schemes.
        ignored: Names of files and folders directly below ``root`` (of ``pooled``, below the folder of any part) that are left out.
        most_lost: Share of the rows and files that may be left out.
        votes: Number of experts who must have marked a pixel; used by ``diaretdb1`` only.

    Returns:
        The manifest and all problems. Of two rows with one id and equal labels the first is kept. If their
        labels differ, both are left out, because nothing says which one is right.

    Raises:
        SourceError: If the source is unknown, the folder is missing, it does not have the layout of the source, too much of it was left
            out, or names suggest that photographs share a patient who is not known.
    """
    if source == pooled.NAME:
        found = pooled.parts(root, tuple(LAYOUTS))
        read = {
            name: load(kind, part, pattern, _below(part, ignored), most_lost, votes)
            for name, (kind, part) in found.items()
        }
        return pooled.pool(read, most_lost)
    if source not in LAYOUTS:
        raise SourceError(f"There is no source {source!r}; there are {', '.join((*LAYOUTS, pooled.NAME))}.")
    layout, where = LAYOUTS[source], paths.resolve(root)
    if not os.fspath(root) or not where.is_dir():
        raise SourceError(f"DATA_ROOT {os.fspath(root)!r} is not a folder. {layout.LAYOUT}")
    reading = Reading(source, where, paths.show(where), layout.LAYOUT, pattern, tuple(ignored), votes)
    for name in ignored:
        reading.problems.append((reading.show(name), "left out by IGNORE", manifests.IGNORED))
    layout.read(reading)
    rows = _settle_repeats(reading)
    _check_identities(reading, rows)
    problems = manifests.problems(reading.problems)
    check_losses(problems, len(rows), most_lost, reading.prefix)
    return Source(source, where, manifests.build(rows), problems, tuple(reading.notes), most_lost)


def _below(root: str, names: Sequence[str]) -> list[str]:
    """Those of the names that lie directly below a folder."""
    return [name for name in names if (paths.resolve(root) / name).exists()]


def _check_identities(reading: Reading, rows: list[dict[str, Any]]) -> None:
    """Say how many photographs name no patient, and refuse names that suggest that some of these share one.

    Raises:
        SourceError: With examples, and what to do.
    """
    unknown, pairs = identity.shared(rows, reading.unknown)
    if reading.pattern and unknown:
        raise SourceError(
            f"{len(unknown)} of {len(rows)} names in {reading.prefix} do not match PATIENT_PATTERN {reading.pattern!r}, such as {unknown[0]!r}."
        )
    if pairs:
        examples = "; ".join(f"{name!r} shares {part!r}" for name, part in pairs[:3])
        raise SourceError(
            f"{reading.prefix}: the patients of {len(unknown)} of {len(rows)} photographs are not known, and {len(pairs)} names suggest "
            f"that some share a patient ({examples}). Give a column of patients, or set PATIENT_PATTERN (--patient-pattern) to a regular "
            "expression such as '(?P<patient>\\d+)_.*'; '(?P<patient>.+)' says that each photograph is its own patient."
        )
    if 0 < len(unknown) < len(rows):
        reading.notes.append(
            f"{len(unknown)} of {len(rows)} photographs name no patient, such as {unknown[0]!r}: each counts as its own."
        )


def of(parameters: DataAudit) -> Source:
    """The data set that the parameters name; a phantom without a folder of its own is rendered first.

    Raises:
        SourceError: As :func:`load`.
    """
    if parameters.source == "phantom" and not parameters.data_root:
        return load("phantom", phantom.prepare_phantom(parameters))
    return load(
        parameters.source,
        parameters.data_root,
        parameters.patient_pattern,
        parameters.ignore,
        parameters.most_lost,
        parameters.votes,
    )


def _settle_repeats(reading: Reading) -> list[dict[str, Any]]:
    """One row per id. A repeat with the same label and file is dropped; an id with different labels or files is
    left out."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _by_folder(reading.rows):
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


def _by_folder(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows; ids that name files in different folders get the folders' names in front, as in ``P007_left``."""
    folders: dict[str, set[PurePosixPath]] = defaultdict(set)
    for row in rows:
        folders[row["image_id"]].add(PurePosixPath(row["path"]).parent)
    renamed = []
    for row in rows:
        image_id = row["image_id"]
        if len(folders[image_id]) > 1:
            common = paths.common(*sorted(folders[image_id]))
            inner = PurePosixPath(row["path"]).parent.relative_to(common).parts
            own = row["patient_id"] == image_id
            image_id = "_".join([*inner, image_id])
            row = {**row, "image_id": image_id, "patient_id": image_id if own else row["patient_id"]}
        renamed.append(row)
    return renamed
