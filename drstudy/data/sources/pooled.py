"""Several data sets as one, so that a network can learn from all of them.

``DATA_ROOT`` names the parts as ``source:folder``, with `` + `` between them::

    DATA_ROOT: eyepacs:data/eyepacs + folder:data/clinic

Each part is read as its own source would be. A part's name is that of its folder. It stands before the ids of its images and
patients (``eyepacs-12_left``), because two sets may count from 1, and in the manifest's column ``source``, because what an absent
mask file means is decided set by set (:func:`drstudy.data.labels.status`). One person in two sets therefore counts as two
patients. A photograph in two sets is found as a duplicate, which keeps both copies on one side of a split.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from drstudy.core import paths
from drstudy.data import manifest as manifests
from drstudy.data.sources.base import Source, SourceError

NAME = "pooled"
BETWEEN = " + "

LAYOUT = (
    "A pooled set has a DATA_ROOT of at least two parts, 'source:folder + source:folder', such as "
    "'eyepacs:data/eyepacs + folder:data/clinic'."
)

UNDIVIDED = ("true_grade", "gradable")
"""Columns that every row of a manifest has or none."""


def parts(data_root: str | os.PathLike[str], known: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The parts that a ``DATA_ROOT`` names.

    Args:
        data_root: ``source:folder + source:folder``.
        known: Sources that may be parts.

    Returns:
        Name of each part to its source and its folder, in the order given.

    Raises:
        SourceError: If there are fewer than two parts, a part names no source or an unknown one, or two names cannot be
            told apart.
    """
    found: dict[str, tuple[str, str]] = {}
    listed = [part.strip() for part in os.fspath(data_root).split(BETWEEN)]
    if len(listed) < 2:
        raise SourceError(f"DATA_ROOT {os.fspath(data_root)!r} has one part. {LAYOUT}")
    for part in listed:
        source, colon, folder = (text.strip() for text in part.partition(":"))
        if not colon or not folder or source not in known:
            raise SourceError(
                f"The part {part!r} of DATA_ROOT does not begin with a source and a colon. The sources are "
                f"{', '.join(known)}. {LAYOUT}"
            )
        name = paths.resolve(folder).name
        for other in found:
            if f"{name}-".startswith(f"{other}-") or f"{other}-".startswith(f"{name}-"):
                raise SourceError(
                    f"Two parts of DATA_ROOT are named {other!r} and {name!r}, so their ids could be confused: give one folder "
                    "another name."
                )
        found[name] = (source, folder)
    return found


def folders(data_root: str) -> list[str]:
    """The folders of the parts that a ``DATA_ROOT`` names, in the order given; not checked."""
    return [part.partition(":")[2].strip() for part in data_root.split(BETWEEN)]


def pool(read: Mapping[str, Source], most_lost: float = 1.0) -> Source:
    """One data set from several.

    Args:
        read: Name of each part to the part as its own source reads it.
        most_lost: Share of the rows and files of the pool that may be left out.

    Returns:
        All rows, with ids, patients and ``source`` by part. A lesion that only some parts annotate is unknown in the others, and so is
        the level of their masks (``mask_values``). Every note begins with the name of its part.

    Raises:
        SourceError: If only some parts have a column of :data:`UNDIVIDED`, or two parts share a file.
    """
    frames = [_named(name, part.manifest) for name, part in read.items()]
    for column in UNDIVIDED:
        having = [name for name, frame in zip(read, frames) if column in frame]
        if having and len(having) < len(frames):
            raise SourceError(
                f"Only {', '.join(having)} has the column {column}: a phantom can be pooled with phantoms only."
            )
    whole = pd.concat(frames, ignore_index=True)
    resolved = whole["path"].map(lambda path: str(paths.resolve(path).resolve()))
    if resolved.duplicated().any():
        raise SourceError(
            f"{int(resolved.duplicated().sum())} files belong to two parts of DATA_ROOT, {whole['path'][resolved.duplicated()].iloc[0]!r} for "
            "one: name each folder once."
        )
    problems = pd.concat([part.problems for part in read.values()], ignore_index=True)
    notes = [
        f"{name}: {len(part.manifest)} images. {' '.join(part.notes)}".strip() for name, part in read.items()
    ]
    root = _common_root([part.root for part in read.values()])
    return Source(NAME, root, manifests.build(whole), problems, tuple(notes), most_lost)


def _common_root(roots: Sequence[Path]) -> Path:
    """The folder that holds all parts, for messages; the first part where they lie on different drives."""
    try:
        return paths.common(*roots)
    except ValueError:
        return roots[0]


def _named(name: str, manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows of one part under the names that they have in the pool."""
    return manifest.assign(
        image_id=f"{name}-" + manifest["image_id"],
        patient_id=f"{name}-" + manifest["patient_id"],
        source=name,
    )
