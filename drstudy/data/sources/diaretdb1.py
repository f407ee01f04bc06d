"""DIARETDB1: regions of lesions that four experts marked, as votes per pixel; no grades (Kauppi et al. 2007).

``votes/<kind>/<photograph>.png`` has one value per pixel, :data:`STEP` times the number of experts who marked it. A file that
is not there means that nobody marked this kind in this photograph, so it is absent. A folder that is not there means that
the kind was not annotated.

A pixel belongs to a lesion if at least so many experts marked it (:attr:`drstudy.data.sources.base.Reading.votes`). The mask
files stay as they are: the manifest names them and says in ``mask_values`` from which value on a pixel counts, and whoever
reads them applies it. :mod:`drstudy.data.votes` reads the votes themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drstudy.core.names import LESIONS
from drstudy.data import decoding
from drstudy.data import manifest as manifests
from drstudy.data.decoding import BadImage
from drstudy.data.sources.base import Files, Reading, SourceError, add, scan

EXPERTS = 4
STEP = 60
"""Value of a pixel that one expert marked; with each further expert it grows by as much."""

VALUES = tuple(STEP * votes for votes in range(EXPERTS + 1))

KINDS = {"MA": "MA", "HE": "HE", "EX": "EX", "SE": "SE", "OD": "DISC"}
"""Name of a folder below ``votes`` to the code of the study."""

LAYOUT = (
    "DIARETDB1 has images/<name>.jpg and votes/<MA, HE, EX, SE or OD>/<name>.png, whose pixels are 60 times the number of "
    "experts who marked them."
)


def read(reading: Reading) -> None:
    """Read the photographs and the votes.

    A photograph with votes that cannot be used is left out: without them, a lesion that is there would count as absent.

    Raises:
        SourceError: If a folder is missing, or the wanted number of votes is not 1 to :data:`EXPERTS`.
    """
    if not 1 <= reading.votes <= EXPERTS:
        raise SourceError(
            f"VOTES is {reading.votes}; {EXPERTS} experts marked DIARETDB1, so give 1 to {EXPERTS}."
        )
    if not (reading.root / "votes").is_dir():
        raise SourceError(f"{reading.show('votes')} is missing. {reading.layout}")
    files = scan(reading, "images")
    kinds = _kinds(reading)
    votes = {kind: scan(reading, f"votes/{kind}") for kind in kinds}
    present = dict.fromkeys(kinds, 0)
    for stem in sorted(files.by_stem):
        most = _most_votes(reading, files, stem, votes)
        if most is None:
            continue
        found: dict[str, str | int] = {"mask_values": reading.votes * STEP}
        for kind, number in most.items():
            here = int(number >= reading.votes)
            present[kind] += here
            if stem in votes[kind].by_stem:
                found[f"mask_{KINDS[kind]}"] = reading.show(votes[kind].by_stem[stem][0])
            if KINDS[kind] in LESIONS:
                found[f"lesion_{KINDS[kind]}"] = here
        add(reading, files, stem, None, **found)
    _name_strangers(reading, files, votes)
    reading.notes += [
        "DIARETDB1 names no patients: each image counts as its own patient. It has no grades.",
        f"A pixel belongs to a lesion if at least {reading.votes} of {EXPERTS} experts marked it (VOTES). Marks are regions "
        "around lesions, not outlines.",
        "Photographs with such a pixel: "
        + ", ".join(f"{kind} {count}" for kind, count in present.items())
        + ".",
    ]
    if missing := [kind for kind in KINDS if kind not in kinds]:
        reading.notes.append(f"There is no folder of votes for {', '.join(missing)}: not annotated.")


def _kinds(reading: Reading) -> list[str]:
    """The kinds that were annotated; what else lies below ``votes`` is a problem."""
    listed = sorted(path.name for path in (reading.root / "votes").iterdir() if not path.name.startswith("."))
    reading.problems += [
        (reading.show(f"votes/{name}"), "votes for an unknown kind of lesion", manifests.IGNORED)
        for name in listed
        if name not in KINDS
    ]
    return [kind for kind in KINDS if kind in listed]


def _name_strangers(reading: Reading, files: Files, votes: dict[str, Files]) -> None:
    """Record every file of votes that belongs to no photograph."""
    reading.problems += [
        (reading.show(path), "votes without a photograph of this name", manifests.IGNORED)
        for listed in votes.values()
        for stem, own in listed.by_stem.items()
        for path in own
        if stem not in files.by_stem
    ]


def _most_votes(reading: Reading, files: Files, stem: str, votes: dict[str, Files]) -> dict[str, int] | None:
    """The greatest number of votes of a pixel for each kind, 0 without a file; ``None`` if a file cannot be used."""
    found = {}
    for kind, listed in votes.items():
        own = listed.by_stem.get(stem, [])
        try:
            found[kind] = _most(reading, files.by_stem[stem][0], own) if own else 0
        except BadImage as error:
            reading.exclude(reading.show(own[0]), f"{error}; its photograph is left out")
            return None
    return found


def _most(reading: Reading, photograph: str, listed: list[str]) -> int:
    """The greatest number of votes of a pixel in a file.

    Raises:
        BadImage: If there are two files, or the file cannot be read, is not of the photograph's size, or has other values.
    """
    if len(listed) > 1:
        raise BadImage(f"{len(listed)} files of votes for one photograph: {', '.join(listed)}")
    sizes = []
    for path in (photograph, listed[0]):
        content = decoding.read_bytes(reading.root / path)
        head = decoding.header(content, Path(path).suffix, np.inf)
        sizes.append((head.width, head.height))
    if sizes[0] != sizes[1]:
        raise BadImage("votes of {}x{} pixels for a photograph of {}x{}".format(*sizes[1], *sizes[0]))
    return int(count(decoding.pixels(content, head)).max())


def count(pixels: np.ndarray) -> np.ndarray:
    """Votes from the pixels of a file.

    Args:
        pixels: (h, w, 3) uint8, result of :func:`drstudy.data.decoding.pixels`.

    Returns:
        (h, w) uint8, 0 to :data:`EXPERTS`.

    Raises:
        BadImage: If a pixel has a colour, or a value other than :data:`VALUES`.
    """
    if (pixels != pixels[..., :1]).any():
        raise BadImage("votes in colour: a grey picture is needed")
    others = np.setdiff1d(pixels[..., 0], VALUES)
    if len(others):
        raise BadImage(f"votes with the value {others[0]}: it must be one of {', '.join(map(str, VALUES))}")
    return pixels[..., 0] // STEP
