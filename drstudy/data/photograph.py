"""One photograph from outside a data set: decoded and cut as those of an audit, or refused with the reason, the numbers and what to do.

The measures and the thresholds are those of the audit (:mod:`drstudy.data.measures`, :data:`drstudy.data.audit.FLAGS`). An audit only
flags a doubtful photograph, because a reader looks at the whole set. Here nobody looks, so a flagged photograph is refused.

None of this recognises a retina. A red ball on a black table passes. It keeps out what a network would answer for no reason at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drstudy.data import audit, decoding
from drstudy.data.decoding import BadImage
from drstudy.data.images import Crop, crops
from drstudy.data.measures import FILLED

LARGEST_FILLED = 0.997
"""Share of its bounding box above which a field has no border, as a page has none: the whole picture is 1. Of 2,493 real photographs
(EyePACS, ODIR, DIARETDB1, IDRiD and others), many of them cut at all four sides, one is above it, at 0.998, and that one is overexposed."""

DECODE, FIELD = "cannot be read", "field of view not found"
"""Reasons beside the audit's flags."""

WORDS = {
    "dark": ("too dark", "mean brightness of the field of view, 0 to 255"),
    "shadow": ("too much of it is dark", "share of the field of view below level 25"),
    "glare": ("overexposed", "share of the field of view above level 240"),
    "blurred": ("blurred or hazy", "fine detail of the green channel, % of its mean"),
}
"""Flag to the reason as a reader sees it, and to what was measured."""

REMEDIES = {
    DECODE: "Export the photograph again as JPEG, PNG or TIFF.",
    FIELD: "Give the whole photograph as the camera made it: a bright round field on a dark background, not cropped inside the field.",
    "dark": "Take the photograph again with more light.",
    "shadow": "Take the photograph again with the camera centred on the pupil.",
    "glare": "Take the photograph again with less light.",
    "blurred": "Take the photograph again in focus, or give the original file if this one was made smaller or compressed.",
}
"""What to do, by reason."""


@dataclass(frozen=True)
class Problem:
    """Why a photograph is refused.

    Attributes:
        kind: :data:`DECODE`, :data:`FIELD`, or a name of :data:`drstudy.data.audit.FLAGS`.
        reason: In words, with the numbers.
    """

    kind: str
    reason: str

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind]


class Refused(ValueError):
    """The file is not a photograph that a network of this study should answer.

    Attributes:
        problems: At least one, the gravest first.
        measured: What was measured before it was refused; see :attr:`Photograph.facts`. Empty if it could not be decoded.
    """

    def __init__(self, problems: tuple[Problem, ...], measured: Mapping[str, Any] | None = None) -> None:
        self.problems, self.measured = problems, dict(measured or {})
        super().__init__("; ".join(problem.reason for problem in problems))

    @property
    def remedy(self) -> str:
        """What to do, once for each kind of problem."""
        return " ".join(dict.fromkeys(problem.remedy for problem in self.problems))


@dataclass(frozen=True)
class Photograph:
    """A photograph that passed.

    Attributes:
        path: File.
        image: (S, S, 3) uint8 RGB, the crop of the field of view.
        facts: The record of :func:`drstudy.data.images.crops.prepare`: geometry, file facts, measures of quality, ``notes``.
    """

    path: Path
    image: np.ndarray
    facts: dict[str, Any]

    @property
    def crop(self) -> Crop:
        """The square that was cut out of the file's picture."""
        return Crop(*(int(self.facts[name]) for name in ("x0", "y0", "side", "width", "height")))

    @property
    def remarks(self) -> list[str]:
        """What was unusual about the file although it is used."""
        return [f"{problem} ({action})" for problem, action in self.facts["notes"]]


def read(path: str | os.PathLike[str], image_size: int, max_megapixels: float) -> Photograph:
    """Decode a file, cut it to its field of view as a data audit does, and judge it.

    Args:
        path: File.
        image_size: ``IMAGE_SIZE`` of the audit whose photographs the network learnt, pixels.
        max_megapixels: ``MAX_MEGAPIXELS`` of that audit.

    Raises:
        Refused: If it cannot be decoded, has no field of view, or has a flag of the audit.
    """
    path = Path(path)
    try:
        image, facts = crops.prepare(decoding.read_bytes(path), path.suffix, image_size, max_megapixels)
    except BadImage as error:
        raise Refused((Problem(_kind(str(error)), _sentence(str(error))),)) from None
    if problems := judge(facts):
        raise Refused(tuple(problems), facts)
    return Photograph(path, image, facts)


def _kind(text: str) -> str:
    """An all black picture can be decoded: it is dark."""
    return "dark" if "all black" in text else DECODE


def _sentence(text: str) -> str:
    if "all black" in text:
        return f"too dark: all black (no pixel above level {crops.BLACK} of 255)"
    return f"{DECODE}: {text}"


def judge(facts: Mapping[str, Any]) -> list[Problem]:
    """What speaks against a photograph that could be decoded.

    Args:
        facts: See :attr:`Photograph.facts`.

    Returns:
        Problems, that of the field of view first. A picture without a field of view has no other problem, since the audit's flags
        are measured inside the field.
    """
    if problem := _field_problem(facts):
        return [problem]
    found = []
    for flag, (column, side, threshold) in audit.FLAGS.items():
        value = facts[column]
        if value < threshold if side == "below" else value > threshold:
            name, what = WORDS[flag]
            bound = "least" if side == "below" else "most"
            found.append(Problem(flag, f"{name} ({what}: {value:.3g}; at {bound} {threshold:g} is needed)"))
    return found


def filled(facts: Mapping[str, Any]) -> float:
    """Share of its bounding box that the field of view covers, 0 to 1: a disc 0.79, a disc that is cut at its sides more, a page 1."""
    box = (facts["field_x1"] - facts["field_x0"]) * (facts["field_y1"] - facts["field_y0"])
    return float(min(1.0, facts["field_share"] * facts["width"] * facts["height"] / box)) if box > 0 else 0.0


def _field_problem(facts: Mapping[str, Any]) -> Problem | None:
    share, size = filled(facts), f"{facts['width']}x{facts['height']} pixels"
    if share > LARGEST_FILLED:
        told = "; ".join(problem for problem, action in facts["notes"] if "whole picture" in action)
        why = told or f"the bright part fills {share:.1%} of its box, so it has no round border"
        return Problem(FIELD, f"{FIELD}: {why} ({size}; at most {LARGEST_FILLED:.1%} is a field)")
    if share < FILLED[0]:
        return Problem(
            FIELD,
            f"{FIELD}: the bright part fills {share:.1%} of its box and is no disc ({size}; at least {FILLED[0]:.0%} is a field)",
        )
    return None
