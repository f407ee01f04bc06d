"""Lesion masks as people store them: any depth, either polarity, smeared by compression; and what cannot be a mask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drstudy.core import paths
from drstudy.core.names import LESIONS
from drstudy.data import decoding
from drstudy.data.damage import Remark
from drstudy.data.decoding import BadImage

TWO_LEVELS = 0.98
"""Share of the pixels that must lie near black or near the brightest level; else a picture with more than two levels is no mask."""
NEAR = 0.25
"""How near, as a share of the brightest level."""
FEW = 8
"""Levels up to which a lossless mask is a map of classes, of which every class counts."""
MOST_COVERED = 0.5
"""Share of a picture that no lesion covers: a mask that covers more is inverted, or is no mask."""
BACKGROUND = 0.99
"""Share of the border that must be covered for a white background."""
NOT_ANNOTATED = "used: the lesion counts as not annotated here"


def inside(content: bytes, head: decoding.Header, least: int | None = None) -> np.ndarray:
    """Pixels that a mask covers.

    Args:
        content: The whole file.
        head: Result of :func:`drstudy.data.decoding.header`.
        least: Level (1 to 255) from which on a pixel belongs to the mask, for files whose levels are known (``mask_values`` of
            :mod:`drstudy.data.manifest`). ``None`` judges the file as :func:`judge` does.

    Returns:
        (h, w) bool.

    Raises:
        BadImage: If the file cannot be decoded or is no mask.
    """
    if least is not None:
        return _largest(decoding.pixels(content, head)) >= least
    return judge(content, head)[0]


def judge(content: bytes, head: decoding.Header) -> tuple[np.ndarray, list[Remark]]:
    """Pixels that a mask covers, and what was noticed.

    A mask has black and one other level, of any depth. Several levels are taken at half of the brightest one if nearly all pixels lie
    near black or near that level (smeared by lossy compression), and as classes if they are few. A white background with dark
    lesions is inverted.

    Args:
        content: The whole file.
        head: Result of :func:`drstudy.data.decoding.header`.

    Returns:
        (h, w) bool, and (problem, action) pairs.

    Raises:
        BadImage: If the file cannot be decoded or is no mask.
    """
    values = _levels(content, head)
    found = _values(values)
    remarks: list[Remark] = []
    if len(found) <= 2 or (len(found) <= FEW and head.format not in decoding.JPEGS):
        covered = values > (found[0] if len(found) > 1 else 0)
        if len(found) > 2:
            remarks.append((f"mask has {len(found)} levels", "used: every level above black counts"))
    else:
        brightest = float(found[-1])
        between = ((values > NEAR * brightest) & (values < (1 - NEAR) * brightest)).mean()
        if between > 1 - TWO_LEVELS or brightest < FEW:
            raise BadImage(
                f"no mask: {len(found)} levels, {between:.0%} of the pixels between black and white"
            )
        covered = values > brightest / 2
        remarks.append(
            (f"mask is smeared over {len(found)} levels", "used: what is above half of the brightest counts")
        )
    return _upright(covered, remarks)


def _upright(covered: np.ndarray, remarks: list[Remark]) -> tuple[np.ndarray, list[Remark]]:
    """The same mask, inverted if its background is white."""
    if covered.mean() <= MOST_COVERED:
        return covered, remarks
    border = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]])
    if border.mean() >= BACKGROUND and 0 < (~covered).mean() < MOST_COVERED:
        return ~covered, [*remarks, ("mask has a white background", "used: what is dark counts")]
    return covered, remarks


def _levels(content: bytes, head: decoding.Header) -> np.ndarray:
    """(h, w) levels of a mask as the file has them: of colours the largest channel."""
    if head.bits <= 8:
        return _largest(decoding.pixels(content, head))
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise BadImage(f"mask of {head.bits} bits cannot be decoded")
    return array if array.ndim == 2 else _largest(array)


def _largest(pixels: np.ndarray) -> np.ndarray:
    """(h, w) largest of the first three channels of (h, w, 3 or 4); by channels, since numpy is slow over an axis of three."""
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue)


def _values(levels: np.ndarray) -> np.ndarray:
    """The levels that occur, sorted."""
    if levels.dtype == np.uint8:
        return np.flatnonzero(np.bincount(levels.ravel(), minlength=256)).astype(np.uint8)
    return np.unique(levels)


def examine(row: dict[str, Any], image: str | os.PathLike[str]) -> list[tuple[str, str, str]]:
    """Open the lesion masks of one photograph, and correct its row where they differ.

    Presence follows from the pixels: ``lesion_<CODE>`` becomes 1 or 0. A mask that cannot be used is taken out of the row, and its lesion
    becomes *not annotated*.

    Args:
        row: Row of a manifest, with ``mask_<CODE>``; changed in place.
        image: File of the photograph, for its proportions.

    Returns:
        Problems (file, problem, action).
    """
    codes = [name[5:] for name in row if name.startswith("mask_") and row[name]]
    if not codes:
        return []
    try:
        shape = _proportions(image)
    except BadImage:
        shape = None  # the photograph itself is refused where it is decoded
    problems = []
    for code in codes:
        file = row[f"mask_{code}"]
        try:
            covered, remarks = _opened(file, shape)
            if code in LESIONS and covered.mean() > MOST_COVERED:
                raise BadImage(f"mask covers {covered.mean():.0%} of the picture, which no lesion does")
        except BadImage as error:
            problems.append((file, str(error), NOT_ANNOTATED))
            row[f"mask_{code}"] = ""
            if code in LESIONS:
                row[f"lesion_{code}"] = None
            continue
        problems += [(file, problem, action) for problem, action in remarks]
        if code not in LESIONS:
            continue
        there, said = int(covered.any()), row.get(f"lesion_{code}")
        if not there:
            problems.append((file, "mask is all black", "used: the lesion counts as absent"))
        elif said not in (None, "") and int(said) != there:
            problems.append(
                (file, f"mask shows a lesion that the labels mark as absent ({code})", "used: present")
            )
        row[f"lesion_{code}"] = there
    return problems


def _opened(file: str, shape: tuple[int, int] | None) -> tuple[np.ndarray, list[Remark]]:
    content = decoding.read_bytes(paths.resolve(file))
    head = decoding.header(content, Path(file).suffix, np.inf)
    if shape and abs(head.width / shape[0] - head.height / shape[1]) > 0.01:
        raise BadImage(
            f"mask is {head.width}x{head.height}, not of the proportions of its image ({shape[0]}x{shape[1]})"
        )
    return judge(content, head)


def _proportions(image: str | os.PathLike[str]) -> tuple[int, int]:
    head = decoding.header(decoding.read_bytes(image), Path(image).suffix, np.inf)
    return head.width, head.height
