"""What is measured on a photograph: where its field of view is, and whether it is fit to be graded."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SEARCH_SIDE = 256
"""Longer side, in pixels, of the copy in which the field of view is looked for."""
BACKGROUND_MARGIN = 5.0
BACKGROUND_SHARE = 0.08
"""A pixel belongs to the field if it is this much brighter than the corners: at least 5 of 255 levels (noise
of JPEG in black), and at least 8 % of the way to the bright parts (glow and scanner haze around a bright
field)."""
BACKGROUND_HIGHEST = 30.0
"""Corners brighter than this are retina, or a bright background, which is flat."""
FLAT = 8
"""Levels by which the pixels of a flat corner may differ from the background's colour."""
SURROUND_CONTRAST = 16
"""Levels by which a pixel of the field must differ from a bright background in one channel."""
FILLED = (0.70, 0.97)
"""Share of its bounding box that a field on a bright background covers: a disc 0.79, a disc cut above and below more, a page all."""
SOLID = 0.9
"""Share of its convex hull that such a field covers."""
SMALLEST_FIELD = 0.02
"""A field of less than this share of the picture is not one."""

MEASURE_SIDE = 256
"""Brightness, contrast, sharpness and the perceptual hash are taken at this side of the crop, so that they
compare."""
DARK_LEVEL = 25
WHITE_LEVEL = 240
FINE_SIGMA = 2.0
"""Gaussian, in pixels of a crop of side 256: what it removes is fine detail, such as small vessels."""


@dataclass(frozen=True)
class Field:
    """A field of view in a picture, in pixels of that picture.

    Attributes:
        x0, y0: Left and upper edge of its bounding box (inclusive).
        x1, y1: Right and lower edge (exclusive).
        mask: (h, w) uint8, 1 inside: the field in a shrunk copy of the whole picture (256 px on its longer side).
        brightest: Highest value of any channel in that copy, 0 to 255.
        remark: (problem, action) if the surroundings are not dark; else empty.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    mask: np.ndarray
    brightest: int
    remark: tuple[str, str] | None = None

    @property
    def share(self) -> float:
        """Of the picture's area that it covers, 0 to 1."""
        return cv2.countNonZero(self.mask) / self.mask.size

    @property
    def side(self) -> float:
        """Of the square around it."""
        return max(self.x1 - self.x0, self.y1 - self.y0)


def find_field(pixels: np.ndarray) -> Field | None:
    """Find the lit disc, or what the camera left of it.

    The threshold follows the corners and the bright parts of each picture, the largest connected region is
    opened (thin marks at the rim fall away) and its convex hull is the field, so shadows inside it do not
    count as background. On a bright flat background (grey or white) the field is what differs from it, if that has the shape of a
    disc; otherwise the field is in doubt, and is the whole picture.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Returns:
        ``None`` if nothing in the picture is brighter than its background.
    """
    height, width = pixels.shape[:2]
    value, colours = _shrunk(pixels)
    mask, remark = _field_mask(value, colours)
    if mask is None:
        return None
    scale_x, scale_y = width / mask.shape[1], height / mask.shape[0]
    x, y, w, h = cv2.boundingRect(mask)
    return Field(
        x * scale_x,
        y * scale_y,
        (x + w) * scale_x,
        (y + h) * scale_y,
        mask,
        int(value.max(initial=0)),
        remark,
    )


def fov_mask(image: np.ndarray) -> np.ndarray:
    """The field of view of a stored crop.

    Args:
        image: (S, S, 3) uint8 RGB.

    Returns:
        (S, S) bool; all true where no border can be told from the field.
    """
    mask, _ = _field_mask(*_shrunk(image))
    if mask is None:
        return np.ones(image.shape[:2], dtype=bool)
    return cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def _shrunk(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of at most :data:`SEARCH_SIDE`: the largest of the three channels, (h, w) uint8, without noise; and its colours, (h, w, 3)."""
    height, width = pixels.shape[:2]
    factor = SEARCH_SIDE / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    red, green, blue = cv2.split(pixels)
    value = cv2.max(cv2.max(red, green), blue)
    return (cv2.medianBlur(value, 5) if min(value.shape) >= 5 else value), pixels


def _field_mask(value: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray | None, tuple[str, str] | None]:
    """The field, ``None`` if there is none, and a remark on surroundings that are not dark."""
    k = max(1, round(0.04 * min(value.shape)))
    corners = (value[:k, :k], value[:k, -k:], value[-k:, :k], value[-k:, -k:])
    background = min(map(_median, corners))
    if background > BACKGROUND_HIGHEST:
        return _on_bright(colours, k)
    return _on_dark(value, background), None


def _median(values: np.ndarray) -> float:
    """``np.median`` of a few whole numbers, without its overhead, which is most of its time."""
    ordered = np.sort(values, axis=None)
    return (float(ordered[(ordered.size - 1) // 2]) + float(ordered[ordered.size // 2])) / 2


def _on_bright(colours: np.ndarray, k: int) -> tuple[np.ndarray, tuple[str, str] | None]:
    """The field in a picture with bright corners: the disc on a flat background; the whole picture where there is no such disc."""
    whole = np.ones(colours.shape[:2], np.uint8)
    corners = [colours[:k, :k], colours[:k, -k:], colours[-k:, :k], colours[-k:, -k:]]
    flat = np.concatenate([corner.reshape(-1, 3) for corner in corners]).astype(int)
    colour = np.median(flat, axis=0)
    if (np.abs(flat - colour).max(axis=1) <= FLAT).mean() < SOLID:
        return whole, None  # retina reaches the corners
    level = round(float(colour.max()))
    differs = (np.abs(colours.astype(int) - colour).max(axis=2) > SURROUND_CONTRAST).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(differs)
    if count > 1:
        region = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
        mask = _hull(region)
        _, _, w, h = cv2.boundingRect(mask)
        filled = mask.sum() / (w * h)
        if (
            mask.mean() >= SMALLEST_FIELD
            and FILLED[0] <= filled <= FILLED[1]
            and region.sum() >= SOLID * mask.sum()
        ):
            return mask, (
                f"the surroundings are bright (level {level}), not black",
                "used: field of view found by its shape",
            )
    return whole, (
        f"the corners are bright and flat (level {level}), but no disc can be separated from them",
        "used: whole picture, field of view in doubt",
    )


def _hull(region: np.ndarray) -> np.ndarray:
    """The convex hull of a region, uint8, 1 inside."""
    mask = np.zeros_like(region)
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.concatenate(outlines)), 1)
    return mask


def _on_dark(value: np.ndarray, background: float) -> np.ndarray | None:
    """The field in a picture with dark corners of this level."""
    counts = cv2.calcHist([value], [0], None, [256], [0, 256]).ravel()
    bright = float(np.searchsorted(np.cumsum(counts), 0.95 * value.size))  # 95th percentile
    level = background + max(BACKGROUND_MARGIN, BACKGROUND_SHARE * (bright - background))
    lit = (value > level).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(lit)
    if count < 2:
        return None
    region = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).view(np.uint8)
    radius = max(1, round(0.02 * max(value.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(region, cv2.MORPH_OPEN, disc)
    if cv2.countNonZero(opened) > 0.5 * cv2.countNonZero(region):
        region = opened
    if cv2.countNonZero(region) / region.size < SMALLEST_FIELD:
        return None
    return _hull(region)


def quality(crop: np.ndarray, field: np.ndarray) -> dict[str, float]:
    """Brightness, contrast and sharpness inside the field of view.

    Args:
        crop: (256, 256, 3) uint8 RGB, a square around the field of view.
        field: (256, 256) uint8, 1 inside the field of view.

    Returns:
        ``brightness`` mean luminance, 0 to 255; ``contrast`` its standard deviation; ``dark_share`` and
        ``white_share`` of the field below level 25 and above level 240; ``sharpness`` standard deviation of
        the fine detail of the green channel, in % of its mean, over the inner field (the rim would count as
        detail).
    """
    luminance = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    counts = cv2.calcHist([luminance], [0], field, [256], [0, 256]).ravel()
    mean, deviation = cv2.meanStdDev(luminance, mask=field)
    green = cv2.extractChannel(crop, 1).astype(np.float32)
    fine = green - cv2.GaussianBlur(green, (0, 0), FINE_SIGMA)
    framed = cv2.copyMakeBorder(field, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=12)[1:-1, 1:-1].copy()
    inner = inner if inner.any() else field
    return {
        "brightness": float(mean[0, 0]),
        "contrast": float(deviation[0, 0]),
        "dark_share": float(counts[:DARK_LEVEL].sum() / counts.sum()),
        "white_share": float(counts[WHITE_LEVEL + 1 :].sum() / counts.sum()),
        "sharpness": float(
            100 * cv2.meanStdDev(fine, mask=inner)[1][0, 0] / max(1.0, cv2.mean(green, mask=inner)[0])
        ),
    }


def perceptual_hash(crop: np.ndarray) -> str:
    """64-bit DCT hash of the grey crop (imagehash.phash), 16 hexadecimal digits."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(crop)))
