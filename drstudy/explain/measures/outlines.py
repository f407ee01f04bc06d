"""From maps of single lesions to outlines, which can be counted, looked at, and laid on the photograph.

Jiang et al. 2020 outline lesion regions on Grad-CAM maps of a multi-label network and do not say how (docs/sources.md, B2);
every step here is a choice of ours (docs/sources.md, B3):

- A map is brought to the side of the photograph as :func:`drstudy.explain.methods.cam.upsample` does, what lies outside the
  field of view is dropped, and only then its maximum is taken: heat on the black surround sets no scale.
- It is cut at a share of that maximum, fixed (:data:`drstudy.explain.measures.scores.FIXED`), fitted on other eyes
  (:func:`fit_fractions`), or where Otsu's method parts it. Pixels at the cut belong to the region.
- Pixels that touch at a side or a corner are one outline. Outlines smaller than a circle :data:`SMALLEST` disc
  diameters wide are dropped.
- There is none, and :attr:`Regions.status` says why, where the lesion is not predicted, where the map is 0, and where
  the cut takes the whole field, as it does of a flat map: a line around everything shows nothing.

Outlines run midway between the pixels inside and those outside, so the centres of the pixels inside a polygon are
exactly the region: writing polygons and filling them again loses no pixel. Coordinates are those of pixel *edges*: x
to the right, y down, (0, 0) the outer corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from drstudy.explain.measures import scores

if TYPE_CHECKING:
    from drstudy.explain.measures.localisation import Masks

SMALLEST = 1 / 12
"""Disc diameters: the smallest circle that is outlined. About the width of a large vein; see
:data:`drstudy.explain.measures.scores.SIZES`."""

OUTLINED = "outlined"
STATUS = (OUTLINED, "not predicted", "no heat", "flat", "no cut", "below the cut", "too small")
"""What became of a map; ``no cut``: no other eye had this lesion, so no cut could be fitted; ``below the cut``: a cut that is a value,
and not a share of the maximum, is above the whole map."""


@dataclass(frozen=True)
class Regions:
    """What is outlined in one eye.

    Attributes:
        masks: (L, S, S) bool, one per label; empty unless the label's status is ``outlined``.
        status: L of :data:`STATUS`.
    """

    masks: np.ndarray
    status: tuple[str, ...]


@dataclass(frozen=True)
class Outline:
    """One connected region of one lesion.

    Attributes:
        label: Code of the lesion.
        score: Predicted probability of this lesion in the eye, 0..1; the same for all outlines of one lesion.
        area: Pixels of the study's image.
        rings: (V, 2) float64 of x, y each, not closed, in pixel edges: the outer border, then one per hole.
    """

    label: str
    score: float
    area: int
    rings: tuple[np.ndarray, ...]


# --- from a map to a region -----------------------------------------------------------------------


def regions(
    maps: np.ndarray,
    probabilities: Sequence[float],
    thresholds: Sequence[float],
    fov: np.ndarray,
    cut: float | str | Sequence[float] = scores.FIXED,
    smallest: float = SMALLEST,
    by_value: bool = False,
) -> Regions:
    """Cut regions out of the maps of one eye.

    Args:
        maps: (L, h, w) float, at least 0, unscaled: one map per label.
        probabilities: (L,) predicted, 0..1.
        thresholds: (L,); a label is predicted where its probability is at least this.
        fov: (S, S) bool, the field of view at the size of the outlines.
        cut: Share of each map's maximum, one for all or one per label (NaN: none is known, nothing is outlined); or
            ``otsu``.
        smallest: Diameter of the smallest circle to be outlined, disc diameters (of the field of view's size,
            :data:`drstudy.explain.measures.scores.ASSUMED_DISC`: an eye to be read has no disc mask); 0 keeps all.
        by_value: Whether ``cut`` is a value of the maps, one per label, as :func:`drstudy.explain.measures.fine.fit_cuts` finds it. It
            is meaningful for maps whose values mean the same in every eye.

    Raises:
        ValueError: If shapes do not fit, maps are negative or not finite, the field of view is empty, a probability is
            not in 0..1, or ``cut`` is neither ``otsu`` nor between 0 and 1 (with ``by_value``: not one number per label).
    """
    probabilities, thresholds = np.asarray(probabilities, float), np.asarray(thresholds, float)
    inside = _inside(maps, fov)
    if probabilities.shape != (len(maps),) or thresholds.shape != (len(maps),):
        raise ValueError(
            f"There are {len(maps)} maps, probabilities of shape {probabilities.shape} and thresholds of shape "
            f"{thresholds.shape}: give one of each for a label."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(
            f"probabilities must lie in 0..1, not {probabilities.tolist()}: pass sigmoids, not logits."
        )
    levels = _values(inside, cut) if by_value else _levels(inside, cut)
    diameter, _ = scores.disc_diameter(None, fov)
    least = np.pi / 4 * (smallest * diameter) ** 2
    masks, status = np.zeros((len(maps), *fov.shape), bool), []
    for mask, heat, level, predicted in zip(masks, inside, levels, probabilities >= thresholds):
        taken = heat >= level
        if not predicted:
            status.append("not predicted")
        elif heat.max() == 0:
            status.append("no heat")
        elif taken.all():
            status.append("flat")
        elif np.isnan(level):
            status.append("no cut")
        elif not taken.any():
            status.append("below the cut")
        else:
            mask[fov] = taken
            mask[:] = _large(mask, least)
            status.append(OUTLINED if mask.any() else "too small")
    return Regions(masks, tuple(status))


def _inside(maps: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """(L, P) float32: maps at the side of the photograph, on the pixels of the field of view."""
    from drstudy.explain.methods.cam import upsample

    if fov.dtype != bool or fov.ndim != 2 or fov.shape[0] != fov.shape[1] or not fov.any():
        raise ValueError(
            f"fov is {fov.dtype} of shape {fov.shape} with {int(np.count_nonzero(fov))} pixels set: must be bool, "
            "square and not empty."
        )
    if np.ndim(maps) != 3 or not np.isfinite(maps).all() or np.min(maps) < 0:
        raise ValueError("maps must be (labels, h, w), finite and at least 0: pass maps after the ReLU.")
    return upsample(maps, len(fov))[:, fov]


def _values(inside: np.ndarray, cut: Sequence[float]) -> np.ndarray:
    """(L,): cuts that are values of the maps."""
    values = np.asarray(cut, float) if not isinstance(cut, str) else np.empty(0)
    if values.shape != (len(inside),):
        raise ValueError(f"cut is {cut}; give one value of the map for each of the {len(inside)} labels.")
    return values


def _levels(inside: np.ndarray, cut: float | str | Sequence[float]) -> np.ndarray:
    """(L,): the value from which on a pixel belongs to the region."""
    if isinstance(cut, str):
        if cut != "otsu":
            raise ValueError(f"cut is {cut!r}; give 'otsu', or a share of the maximum between 0 and 1.")
        return scores.Ranked(inside).otsu()
    share = np.asarray(cut, float)
    if share.shape not in ((), (len(inside),)) or ((share <= 0) | (share >= 1)).any():
        raise ValueError(
            f"cut is {cut}; give one share of the maximum between 0 and 1, or one for each of the labels."
        )
    return share * inside.max(1)


def _large(mask: np.ndarray, least: float) -> np.ndarray:
    """The connected regions of at least so many pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return keep[labels]


def fit_fractions(
    maps: np.ndarray,
    labels: Sequence[str],
    image_ids: Sequence[str],
    masks_of: Callable[[str], Masks],
    predicted: np.ndarray,
) -> pd.DataFrame:
    """The share of the maximum at which each label's maps are best cut, by mean Dice.

    Fit on validation eyes and use on others: the best cut of the eyes that are judged flatters them. An eye has a say
    where the lesion is there, is predicted (no other is ever outlined), and the map is not 0.

    Args:
        maps: (N, L, h, w) float, at least 0.
        labels: L codes.
        image_ids: N names.
        masks_of: Result of :func:`drstudy.explain.measures.localisation.masks_of`.
        predicted: (N, L) bool.

    Returns:
        One row per label: ``label``, ``eyes`` that had a say, ``fraction`` (of
        :data:`drstudy.explain.measures.scores.FRACTIONS`) and ``dice`` (mean over them, before small regions are dropped); NaN
        where no eye had a say.

    Raises:
        ValueError: If shapes do not fit.
    """
    wanted = (len(image_ids), len(labels))
    if maps.shape[:2] != wanted or predicted.shape != wanted:
        raise ValueError(
            f"maps are {maps.shape} and predicted is {predicted.shape}: must begin with {wanted}."
        )
    curves: dict[str, list[np.ndarray]] = {label: [] for label in labels}
    for eye, image_id in enumerate(image_ids):
        masks = masks_of(image_id)
        fov = np.asarray(masks["FOV"], bool)
        inside = _inside(maps[eye], fov)
        for k, label in enumerate(labels):
            cover = None if masks.get(label) is None else np.asarray(masks[label], np.float32)[fov]
            if cover is not None and cover.any() and predicted[eye, k] and inside[k].any():
                curves[label].append(scores.Ranked(inside[[k]]).scores(cover)["curve"][0])
    rows = []
    for label, found in curves.items():
        fraction = scores.best_fraction(np.array(found)) if found else np.nan
        dice = np.mean(found, axis=0)[fraction == scores.FRACTIONS].item() if found else np.nan
        rows.append({"label": label, "eyes": len(found), "fraction": fraction, "dice": dice})
    return pd.DataFrame(rows)


def agreement(found: Regions, labels: Sequence[str], masks: Masks) -> pd.DataFrame:
    """The outlines of one eye against its masks, label by label.

    Args:
        found: Result of :func:`regions`.
        labels: L codes.
        masks: Masks of the eye; ``FOV`` must be there.

    Returns:
        One row per label: ``label``, ``status``, ``present`` (True, False, or <NA> where not annotated), ``area`` (share
        of the field of view that is outlined), ``outlines`` and how many of them touch a true lesion of this kind
        (``outlines_right``), true ``lesions`` and how many of them an outline touches (``lesions_touched``; wide
        outlines touch many, read it beside ``area``), ``dice`` and ``iou`` (0 where a lesion that is there has no
        outline, NaN where the eye has none). Counts of truth are <NA> where not annotated.
    """
    fov, rows = np.asarray(masks["FOV"], bool), []
    for label, status, mask in zip(labels, found.status, found.masks):
        row = {"label": label, "status": status, "area": mask.sum() / fov.sum(), "outlines": _count(mask)}
        cover = masks.get(label)
        if cover is not None:
            cover = np.where(fov, np.asarray(cover, np.float32), 0)
            total = cover.sum(dtype=np.float64)
            dice = 2 * cover[mask].sum(dtype=np.float64) / (mask.sum() + total) if total else np.nan
            row |= {
                "present": bool(total),
                "outlines_right": _touched(mask, cover > 0),
                "lesions": _count(cover > 0),
                "lesions_touched": _touched(cover > 0, mask),
                "dice": dice,
                "iou": scores.iou(dice),
            }
        rows.append(row)
    kinds = {"present": "boolean"} | dict.fromkeys(("outlines_right", "lesions", "lesions_touched"), "Int64")
    columns = ["label", "status", "present", "area", "outlines", *list(kinds)[1:], "dice", "iou"]
    return pd.DataFrame(rows).reindex(columns=columns).astype(kinds)


def _count(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def _touched(mask: np.ndarray, other: np.ndarray) -> int:
    """How many connected regions of a mask have a pixel of the other."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return len(np.unique(labels[mask & other]))


# --- from a region to polygons --------------------------------------------------------------------


def trace(found: Regions, labels: Sequence[str], probabilities: Sequence[float]) -> list[Outline]:
    """The outlines of one eye, label by label, from top to bottom."""
    return [
        Outline(label, float(score), area, rings)
        for label, score, mask in zip(labels, probabilities, found.masks)
        for area, rings in borders(mask)
    ]


def borders(mask: np.ndarray) -> list[tuple[int, tuple[np.ndarray, ...]]]:
    """Area and borders of each connected region (touching at corners counts); the outer border first, then holes.

    The contour at one half of scikit-image, and not OpenCV's, which runs through the centres of the border pixels:
    its polygons lack half a pixel all around, and that of a single pixel is a point.

    Args:
        mask: (S, S) bool.
    """
    from skimage.measure import find_contours

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for one in range(1, count):
        x, y, width, height, area = stats[one]
        part = np.pad(labels[y : y + height, x : x + width] == one, 1).astype(float)
        rings = [ring[:-1, ::-1] + (x - 0.5, y - 0.5) for ring in find_contours(part, 0.5, "high")]
        rings.sort(key=lambda ring: np.ptp(ring[:, 0]) * np.ptp(ring[:, 1]), reverse=True)
        found.append((int(area), tuple(rings)))
    return found


def polygon(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon for a border with holes, as COCO's polygons have none: each hole is tied to the border by a slit.

    A slit is a line of no width from the left end of a hole to the border on its left, drawn there and back; filled
    by the even-odd rule the polygon is the region without its holes. Tools that know only polygons show the slit.

    Args:
        rings: Result of :func:`borders`: each has a vertex in the middle of every pixel side that it passes.

    Returns:
        (V, 2) float64 x, y; vertices in the middle of a straight line are dropped.
    """
    whole, *holes = rings
    for hole in sorted(holes, key=lambda ring: ring[:, 0].min()):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        level = np.flatnonzero((whole[:, 1] == y) & (whole[:, 0] < x))
        at = level[whole[level, 0].argmax()]
        turned = np.roll(hole, -start, axis=0)
        whole = np.concatenate([whole[: at + 1], turned, turned[:1], whole[at:]])
    before, after = whole - np.roll(whole, 1, axis=0), np.roll(whole, -1, axis=0) - whole
    straight = (before * after[:, ::-1] @ (1, -1) == 0) & ((before * after).sum(1) > 0)
    return whole[~straight]


def fill(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels whose centres lie in one of the polygons, by the even-odd rule."""
    from skimage.draw import polygon2mask

    mask = np.zeros((height, width), bool)
    for points in polygons:
        mask |= polygon2mask((height, width), np.asarray(points)[:, ::-1] - 0.5)
    return mask
