"""One photograph: decoded, cut to its field of view and measured; and its masks in the geometry of the crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.data import decoding, measures
from drstudy.data import masks as masking
from drstudy.data.decoding import BadImage
from drstudy.data.measures import MEASURE_SIDE

BLACK = 12
"""A picture with no pixel above this level (of 255) is all black."""


def shrink(square: np.ndarray, size: int) -> np.ndarray:
    """Bring a square to another side.

    By two or more, and for masks, each pixel is the mean of the area that it covers. A photograph is shrunk by less
    bilinearly, which there differs from that mean by a fraction of a level, at a quarter of the time; it is what a JPEG decoder
    that has halved its picture as often as it may leaves to be done.

    Args:
        square: (s, s) or (s, s, 3), uint8 or float32.
        size: Side of the result; a larger one than ``s`` is interpolated.
    """
    ratio = min(square.shape[:2]) / size
    areas = ratio >= 2 or (ratio >= 1 and square.dtype != np.uint8)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if areas else cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Crop:
    """A square around the field of view, in pixels of the upright full-size picture; it may reach beyond the
    edges.

    Attributes:
        x0, y0: Its left and upper corner (may be negative).
        side: Length of its side.
        width, height: Size of the whole picture.
    """

    x0: int
    y0: int
    side: int
    width: int
    height: int

    def cut(self, array: np.ndarray, size: int, interpolation: int | None = None) -> np.ndarray:
        """Cut the square out of an array that shows the whole picture at any scale; black beyond the edges.

        Args:
            array: (h, w) or (h, w, 3), uint8 or float32; h and w have the picture's proportions.
            size: Side of the result.
            interpolation: One of OpenCV's; ``None`` is :func:`shrink`'s.

        Returns:
            (size, size[, 3])
        """
        fx, fy = array.shape[1] / self.width, array.shape[0] / self.height
        x0, y0 = round(self.x0 * fx), round(self.y0 * fy)
        x1, y1 = (
            max(x0 + 1, round((self.x0 + self.side) * fx)),
            max(y0 + 1, round((self.y0 + self.side) * fy)),
        )
        inside = array[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        below, right = y1 - y0 - max(0, -y0) - inside.shape[0], x1 - x0 - max(0, -x0) - inside.shape[1]
        border = max(0, -y0), below, max(0, -x0), right
        square = cv2.copyMakeBorder(inside, *border, cv2.BORDER_CONSTANT, value=0) if any(border) else inside
        if interpolation is not None:
            return cv2.resize(square, (size, size), interpolation=interpolation)
        return shrink(square, size)


def prepare(
    content: bytes, suffix: str, image_size: int, max_megapixels: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a file, find its field of view, cut and measure it.

    The JPEG decoder's own reduction is used as far as the crop keeps at least ``image_size`` (and the
    measuring side) pixels; where the field turns out smaller than the picture promised, the file is decoded
    again at a finer scale.

    Returns:
        The (S, S, 3) uint8 RGB crop, and one flat record: geometry, file facts, measurements, ``notes``.

    Raises:
        BadImage: If the file cannot be used.
    """
    head = decoding.header(content, suffix, max_megapixels)
    decoding.check_shape(head)
    try:
        return _prepare(content, head, image_size)
    except BadImage:
        raise
    except (cv2.error, MemoryError) as error:
        raise BadImage(
            f"cannot be cut to its field of view ({str(error).strip().splitlines()[0] if str(error) else 'no memory'})"
        ) from None


def _prepare(content: bytes, head: decoding.Header, image_size: int) -> tuple[np.ndarray, dict[str, Any]]:
    need = max(image_size, MEASURE_SIDE)
    reduce = decoding.reduction(head, need)
    notes = list(head.notes)
    while True:
        pixels = decoding.pixels(content, head, reduce, notes)
        field = measures.find_field(pixels)
        if (field is None or field.brightest <= BLACK) and pixels.max() <= BLACK:
            raise BadImage("all black")
        if field is None or field.side >= need or reduce == 1:
            break
        reduce //= 2
    if field is None:
        notes.append(("the field of view cannot be separated from the background", "used: whole picture"))
        field = measures.Field(0, 0, pixels.shape[1], pixels.shape[0], np.ones((8, 8), np.uint8), 255)
    elif field.remark:
        notes.append(field.remark)
    side = max(1, round(field.side)) * reduce
    x0 = round((field.x0 + field.x1) / 2 * reduce - side / 2)
    y0 = round((field.y0 + field.y1) / 2 * reduce - side / 2)
    # a reduced picture covers whole blocks, so its far edge may lie up to reduce-1 pixels beyond the file's
    crop = Crop(x0, y0, side, pixels.shape[1] * reduce, pixels.shape[0] * reduce)
    image = crop.cut(pixels, image_size)
    facts = _facts(content, head, image) | _geometry(field, reduce)
    standard = crop.cut(pixels, MEASURE_SIDE) if image_size < MEASURE_SIDE else shrink(image, MEASURE_SIDE)
    record = {
        "x0": x0,
        "y0": y0,
        "side": side,
        "width": head.width,
        "height": head.height,
        "reduce": reduce,
        **facts,
        **measures.quality(standard, crop.cut(field.mask, MEASURE_SIDE, cv2.INTER_NEAREST)),
        "phash": measures.perceptual_hash(standard),
        "notes": notes,
    }
    return image, record


def _facts(content: bytes, head: decoding.Header, image: np.ndarray) -> dict[str, Any]:
    """Facts of a record about the file and the crop made from it."""
    return {
        "file_bytes": head.file_bytes,
        "file_sha256": decoding.sha256(content),
        "crop_sha256": decoding.sha256(np.ascontiguousarray(image)),
        "format": head.format,
        "mode": head.mode,
        "bits": head.bits,
        "orientation": head.orientation,
    }


def _geometry(field: measures.Field, reduce: int) -> dict[str, float]:
    """The bounding box of the field of view, in pixels of the full-size picture, and its share of the picture."""
    return {
        "field_x0": round(field.x0 * reduce, 1),
        "field_y0": round(field.y0 * reduce, 1),
        "field_x1": round(field.x1 * reduce, 1),
        "field_y1": round(field.y1 * reduce, 1),
        "field_share": field.share,
    }


def load_masks(
    row: pd.Series, crop: Crop, codes: Sequence[str], image_size: int, coverage: bool = False
) -> dict[str, np.ndarray]:
    """Lesion and anatomy masks of an image, in the geometry of its stored crop.

    Args:
        row: Row of the manifest. Its ``mask_values``, where it has one, is the value from which on a pixel belongs to a mask; else the mask
            is judged as :func:`drstudy.data.masks.judge` does.
        crop: Result of :meth:`ImageStore.crop`.
        codes: Codes such as ``["MA", "EX"]``; those without a mask file are left out of the result.
        image_size: Side of the store's crops.
        coverage: Return the share of each pixel that the mask covers instead of whether it touches it.

    Returns:
        By code: (S, S) bool, true where the mask covers any part of the pixel, so that a microaneurysm
            smaller than a pixel is not lost; or float32 coverage, 0 to 1.

    Raises:
        BadImage: If a mask cannot be read or does not have the proportions of its picture.
    """
    masks, least = {}, row.get("mask_values")
    least = None if pd.isna(least) else int(least)
    for code in codes:
        path = row.get(f"mask_{code}", "")
        if not path:
            continue
        content = decoding.read_bytes(paths.resolve(path))
        head = decoding.header(content, Path(path).suffix, np.inf)
        if abs(head.width / crop.width - head.height / crop.height) > 0.01:
            raise BadImage(
                f"mask {path} is {head.width}x{head.height}, not of the proportions of its image "
                f"({crop.width}x{crop.height})"
            )
        mask = masking.inside(content, head, least).astype(np.float32)
        share = crop.cut(mask, image_size)
        masks[code] = share if coverage else share > 0
    return masks
