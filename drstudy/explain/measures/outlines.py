"""From maps of single lesions to outlines, which can be counted, looked at, and laid on the photograph.

Jiang et al. 2020 outline lesion regions on Grad-CAM maps of a multi-label network and do not say how (*spec* B2);
every step here is a choice of ours (*spec* B3):

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

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.explain.measures import scores

if TYPE_CHECKING:
    from drstudy.data.images import Crop, ImageStore
    from drstudy.explain.measures.localisation import Masks

SMALLEST = 1 / 12
"""Disc diameters: the smallest circle that is outlined. About the width of a large vein; see
:data:`drstudy.explain.measures.scores.SIZES`."""

OUTLINED = "outlined"
STATUS = (OUTLINED, "not predicted", "no heat", "flat", "no cut", "too small")
"""What became of a map; ``no cut``: no other eye had this lesion, so no share of the maximum could be fitted."""

COLOURS = {
    "MA": "#5AA9FF",
    "HE": "#FFFFFF",
    "EX": "#2FE08A",
    "SE": "#FF9EDB",
    "NV": "#F0E442",
    "VB": "#E69F00",
    "IRMA": "#7FA7FF",
    "PRH": "#FF8A5C",
    "LASER": "#BEBEBE",
    "DRUSEN": "#C9B26B",
}
"""One colour a lesion, the same in every outline. Those of the five default labels were chosen to lie at least 20 apart
in CIELAB, from each other and from retina, also for colour-blind readers; a drawing names the lesion in letters too."""

OVERLAY_SIDE = 672
"""Smallest side of a written overlay, pixels: the photograph is enlarged by a whole number to reach it."""


@dataclass(frozen=True)
class Regions:
    """What is outlined in one eye.

    Attributes:
        masks: (L, S, S) bool, one a label; empty unless the label's status is ``outlined``.
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
        rings: (V, 2) float64 of x, y each, not closed, in pixel edges: the outer border, then one a hole.
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
) -> Regions:
    """Cut regions out of the maps of one eye.

    Args:
        maps: (L, h, w) float, at least 0, unscaled: one map a label.
        probabilities: (L,) predicted, 0..1.
        thresholds: (L,); a label is predicted where its probability is at least this.
        fov: (S, S) bool, the field of view at the size of the outlines.
        cut: Share of each map's maximum, one for all or one a label (NaN: none is known, nothing is outlined); or
            ``otsu``.
        smallest: Diameter of the smallest circle to be outlined, disc diameters (of the field of view's size,
            :data:`drstudy.explain.measures.scores.ASSUMED_DISC`: an eye to be read has no disc mask); 0 keeps all.

    Raises:
        ValueError: If shapes do not fit, maps are negative or not finite, the field of view is empty, a probability is
            not in 0..1, or ``cut`` is neither ``otsu`` nor between 0 and 1.
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
    levels = _levels(inside, cut)
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
        masks_of: Of :func:`drstudy.explain.measures.localisation.masks_of`.
        predicted: (N, L) bool.

    Returns:
        One row a label: ``label``, ``eyes`` that had a say, ``fraction`` (of
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
        found: Of :func:`regions`.
        labels: L codes.
        masks: Of the eye; ``FOV`` must be there.

    Returns:
        One row a label: ``label``, ``status``, ``present`` (True, False, or <NA> where not annotated), ``area`` (share
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
        rings: Of :func:`borders`: each has a vertex in the middle of every pixel side that it passes.

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


# --- COCO -----------------------------------------------------------------------------------------


def coco(found: Mapping[str, Sequence[Outline]], labels: Sequence[str], store: ImageStore) -> dict[str, Any]:
    """Outlines as a COCO document, in pixels of the study's images.

    An annotation is one outline: ``segmentation`` is one :func:`polygon`, ``area`` its pixels, ``bbox`` x, y, width,
    height, ``score`` the probability of the lesion. An image carries beside COCO's own fields the study's
    ``image_id``, the ``source`` file and the ``crop`` that was cut out of it, by which :func:`to_source` finds back.

    Args:
        found: image_id to its outlines; an eye without any has its place among the images.
        labels: Categories 1 to L, in this order.
        store: Where the eyes are.
    """
    document: dict[str, Any] = {
        "info": {
            "description": "Outlines of lesions cut out of class activation maps. Coordinates are of pixel edges: "
            "the centre of the first pixel is (0.5, 0.5)."
        },
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": label, "supercategory": "lesion"} for number, label in enumerate(labels, 1)
        ],
    }
    for number, (image_id, outlines) in enumerate(found.items(), 1):
        crop = store.crop(image_id)
        document["images"].append(
            {
                "id": number,
                "file_name": f"images/{image_id}.png",
                "width": store.image_size,
                "height": store.image_size,
                "image_id": image_id,
                "source": str(store.index["path"].iloc[store.row(image_id)]),
                "crop": {name: getattr(crop, name) for name in ("x0", "y0", "side", "width", "height")},
            }
        )
        for outline in outlines:
            points = polygon(outline.rings)
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": list(labels).index(outline.label) + 1,
                    "segmentation": [points.ravel().tolist()],
                    "bbox": _box(points),
                    "area": outline.area,
                    "iscrowd": 0,
                    "score": outline.score,
                }
            )
    return document


def _box(points: np.ndarray) -> list[float]:
    low, high = points.min(0), points.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def on_photograph(points: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Points of a study image as points of the photograph that it was cut out of.

    Exact where the photograph was decoded at full size; where the decoder shrank it by r, the store cut at whole
    shrunk pixels, which is up to r / 2 pixels of the photograph beside the noted corner.

    Args:
        points: (V, 2) x, y in pixel edges of the study image.
        crop: Of :meth:`drstudy.data.images.ImageStore.crop`.
        size: Side of the study image.

    Returns:
        (V, 2) x, y in pixel edges of the upright photograph (turned as its EXIF tag says), not beyond its edges.
    """
    return np.clip(points * (crop.side / size) + (crop.x0, crop.y0), 0, (crop.width, crop.height))


def to_source(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same document in pixels of the upright photographs, to 0.01 pixel.

    Args:
        document: Of :func:`coco`, also after reading it from a file.
    """
    from drstudy.data.images import Crop

    images, crops = [], {}
    for image in document["images"]:
        crop = Crop(**image["crop"])
        crops[image["id"]] = crop, image["width"]
        there = {"file_name": image["source"], "width": crop.width, "height": crop.height}
        images.append({name: value for name, value in image.items() if name != "crop"} | there)
    annotations = []
    for annotation in document["annotations"]:
        crop, size = crops[annotation["image_id"]]
        points = np.reshape(annotation["segmentation"][0], (-1, 2))
        points = on_photograph(points, crop, size).round(2)
        annotations.append(
            annotation
            | {
                "segmentation": [points.ravel().tolist()],
                "bbox": [round(number, 2) for number in _box(points)],
                "area": round(annotation["area"] * (crop.side / size) ** 2, 1),
            }
        )
    return {**document, "images": images, "annotations": annotations}


def masks_in(document: Mapping[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """What a COCO document outlines: (image_id, label) to (height, width) bool; without an outline there is no entry."""
    images = {image["id"]: image for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    polygons: dict[tuple[int, str], list[np.ndarray]] = {}
    for one in document["annotations"]:
        key = one["image_id"], names[one["category_id"]]
        polygons.setdefault(key, []).extend(np.reshape(flat, (-1, 2)) for flat in one["segmentation"])
    return {
        (images[number]["image_id"], label): fill(found, images[number]["height"], images[number]["width"])
        for (number, label), found in polygons.items()
    }


# --- files ----------------------------------------------------------------------------------------


def overlay(image: np.ndarray, outlines: Sequence[Outline], side: int = OVERLAY_SIDE) -> np.ndarray:
    """The photograph with its outlines, each named with its code and probability.

    Args:
        image: (S, S, 3) uint8 RGB.
        outlines: Of the eye.
        side: Smallest side of the result.

    Returns:
        (kS, kS, 3) uint8 RGB, k the smallest whole number with kS >= ``side``.
    """
    factor = -(-side // len(image))
    drawn = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    for outline in outlines:
        lines = [np.rint(16 * (ring * factor - 0.5)).astype(np.int32) for ring in outline.rings]
        colour = _rgb(outline.label)
        for thick, tone in ((5, (0, 0, 0)), (2, colour)):
            cv2.polylines(drawn, lines, True, tone, thick, cv2.LINE_AA, shift=4)
    for outline in outlines:
        x, y = outline.rings[0][outline.rings[0][:, 1].argmin()] * factor
        text, scale = f"{outline.label} {outline.score:.2f}", len(drawn) / 1200
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
        at = int(np.clip(x - width / 2, 2, len(drawn) - width - 2)), int(max(y - 6, height + 2))
        for thick, tone in ((5, (0, 0, 0)), (1, _rgb(outline.label))):
            cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, tone, thick, cv2.LINE_AA)
    return drawn


def _rgb(label: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(COLOURS[label].removeprefix("#")))


def export(
    folder: str | os.PathLike[str],
    found: Mapping[str, Sequence[Outline]],
    labels: Sequence[str],
    store: ImageStore,
) -> dict[str, Any]:
    """Write the outlines of several eyes, each file whole or not at all; masks of an earlier run are removed.

    ``outlines.json`` (COCO, on ``images/<image_id>.png``), ``outlines_source.json`` (the same on the photographs as
    they came), ``images/<image_id>.png``, ``overlays/<image_id>.png``, and ``masks/<image_id>_<CODE>.png`` (one bit a
    pixel, for lesions that are outlined), named as the phantom names its masks.

    Args:
        folder: May exist.
        found: image_id to the outlines of :func:`trace`.
        labels: Codes, in the order of the categories.
        store: Where the eyes are.

    Returns:
        The document of :func:`coco`.
    """
    folder, document = Path(folder), coco(found, labels, store)
    for image_id in found:
        for stale in (folder / f"masks/{image_id}_{label}.png" for label in labels):
            stale.unlink(missing_ok=True)
        image = np.ascontiguousarray(store.images[store.row(image_id)])
        _png(folder / f"images/{image_id}.png", image)
        _png(folder / f"overlays/{image_id}.png", overlay(image, found[image_id]))
    for (image_id, label), mask in masks_in(document).items():
        _png(folder / f"masks/{image_id}_{label}.png", mask)
    for name, content in (("outlines.json", document), ("outlines_source.json", to_source(document))):
        with paths.atomic(folder / name) as temporary:
            temporary.write_text(json.dumps(content) + "\n")
    return document


def _png(path: Path, array: np.ndarray) -> None:
    """Write an RGB picture, or a mask with one bit a pixel."""
    from PIL import Image

    with paths.atomic(path) as temporary:
        Image.fromarray(array).save(temporary)
