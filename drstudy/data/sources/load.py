"""One entry for all sources: from the name of a layout and a folder to the checked manifest."""

from __future__ import annotations

import os
from collections import defaultdict
from types import ModuleType
from typing import TYPE_CHECKING, Any

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources import aptos, diaretdb1, eyepacs, folder, idrid, phantom, pooled
from drstudy.data.sources.base import Reading, Source, SourceError

if TYPE_CHECKING:
    from drstudy.core.params import DataAudit

LAYOUTS: dict[str, ModuleType] = {
    "phantom": phantom,
    "eyepacs": eyepacs,
    "aptos": aptos,
    "idrid": idrid,
    "diaretdb1": diaretdb1,
    "folder": folder,
}
"""Name of a source to its module, which has ``read(reading)`` and the sentence ``LAYOUT``."""


def load(source: str, root: str | os.PathLike[str], votes: int = 3) -> Source:
    """Read a data set's labels and list its files.

    Args:
        source: ``phantom``, ``eyepacs``, ``aptos``, ``idrid``, ``diaretdb1``, ``folder`` or ``pooled``.
        root: Folder of the data set, as a parameter writes it (:func:`drstudy.core.paths.resolve`); for ``pooled`` the parts
            (:func:`drstudy.data.sources.pooled.parts`).
        votes: Number of experts who must have marked a pixel; used by ``diaretdb1`` only.

    Returns:
        The manifest and all problems. Of two rows with one id and equal labels the first is kept. If their
        labels differ, both are left out, because nothing says which one is right.

    Raises:
        SourceError: If the source is unknown, the folder is missing, or it does not have the layout of the source.
    """
    if source == pooled.NAME:
        found = pooled.parts(root, tuple(LAYOUTS))
        return pooled.pool({name: load(*part, votes) for name, part in found.items()})
    if source not in LAYOUTS:
        raise SourceError(f"There is no source {source!r}; there are {', '.join((*LAYOUTS, pooled.NAME))}.")
    layout, where = LAYOUTS[source], paths.resolve(root)
    if not os.fspath(root) or not where.is_dir():
        raise SourceError(f"DATA_ROOT {os.fspath(root)!r} is not a folder. {layout.LAYOUT}")
    reading = Reading(source, where, paths.show(where), layout.LAYOUT, votes)
    layout.read(reading)
    rows = _settle_repeats(reading)
    return Source(
        source, where, manifests.build(rows), manifests.problems(reading.problems), tuple(reading.notes)
    )


def of(parameters: DataAudit) -> Source:
    """The data set that the parameters name; a phantom without a folder of its own is rendered first.

    Raises:
        SourceError: As :func:`load`.
    """
    if parameters.source == "phantom" and not parameters.data_root:
        return load("phantom", phantom.prepare_phantom(parameters))
    return load(parameters.source, parameters.data_root, parameters.votes)


def _settle_repeats(reading: Reading) -> list[dict[str, Any]]:
    """One row per id. A repeat with the same label and file is dropped; an id with different labels or files is
    left out."""
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
