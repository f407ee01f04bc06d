"""What is measured on a photograph: where its field of view is, and whether it is fit to be graded."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SEARCH_SIDE = 384
"""Longer side, in pixels, of the copy in which the field of view is looked for."""
BACKGROUND_MARGIN = 5.0
BACKGROUND_SHARE = 0.08
"""A pixel belongs to the field if it is this much brighter than the corners: at least 5 of 255 levels (noise
of JPEG in black), and at least 8 % of the way to the bright parts (glow and scanner haze around a bright
field)."""
BACKGROUND_HIGHEST = 30.0
"""Corners brighter than this are retina, not background: then the whole picture is the field."""
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
        share: Of the picture's area that it covers, 0 to 1.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    share: float

    @property
    def side(self) -> float:
        """Of the square around it."""
        return max(self.x1 - self.x0, self.y1 - self.y0)


def find_field(pixels: np.ndarray) -> Field | None:
    """Find the lit disc, or what the camera left of it.

    The threshold follows the corners and the bright parts of each picture, the largest connected region is
    opened (thin marks at the rim fall away) and its convex hull is the field, so shadows inside it do not
    count as background.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Returns:
        ``None`` if nothing in the picture is brighter than its background.
    """
    height, width = pixels.shape[:2]
    mask = _field_mask(_shrunk(pixels))
    if mask is None:
        return None
    scale_x, scale_y = width / mask.shape[1], height / mask.shape[0]
    x, y, w, h = cv2.boundingRect(mask)
    return Field(x * scale_x, y * scale_y, (x + w) * scale_x, (y + h) * scale_y, float(mask.mean()))


def fov_mask(image: np.ndarray) -> np.ndarray:
    """The field of view of a stored crop.

    Args:
        image: (S, S, 3) uint8 RGB.

    Returns:
        (S, S) bool; all true where no border can be told from the field.
    """
    mask = _field_mask(_shrunk(image))
    if mask is None:
        return np.ones(image.shape[:2], dtype=bool)
    return cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def brightest_channel(pixels: np.ndarray) -> np.ndarray:
    """The largest of the three channels, (h, w) uint8."""
    red, green, blue = cv2.split(pixels)
    return cv2.max(cv2.max(red, green), blue)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    factor = SEARCH_SIDE / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _field_mask(small: np.ndarray) -> np.ndarray | None:
    value = brightest_channel(small)
    if min(value.shape) >= 5:
        value = cv2.medianBlur(value, 5)
    k = max(1, round(0.04 * min(value.shape)))
    corners = (value[:k, :k], value[:k, -k:], value[-k:, :k], value[-k:, -k:])
    background = min(float(np.median(corner)) for corner in corners)
    if background > BACKGROUND_HIGHEST:
        return np.ones(value.shape, np.uint8)
    bright = float(np.percentile(value, 95))
    lit = (value > background + max(BACKGROUND_MARGIN, BACKGROUND_SHARE * (bright - background))).astype(
        np.uint8
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(lit)
    if count < 2:
        return None
    region = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    radius = max(1, round(0.02 * max(value.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(region, cv2.MORPH_OPEN, disc)
    if opened.sum() > 0.5 * region.sum():
        region = opened
    if region.mean() < SMALLEST_FIELD:
        return None
    mask = np.zeros_like(region)
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.concatenate(outlines)), 1)
    return mask


def quality(crop: np.ndarray) -> dict[str, float]:
    """Brightness, contrast and sharpness inside the field of view.

    Args:
        crop: (256, 256, 3) uint8 RGB, a square around the field of view.

    Returns:
        ``brightness`` mean luminance, 0 to 255; ``contrast`` its standard deviation; ``dark_share`` and
        ``white_share`` of the field below level 25 and above level 240; ``sharpness`` standard deviation of
        the fine detail of the green channel, in % of its mean, over the inner field (the rim would count as
        detail).
    """
    field = fov_mask(crop).astype(np.uint8)
    luminance = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    inside = luminance[field > 0]
    green = crop[:, :, 1].astype(np.float32)
    fine = green - cv2.GaussianBlur(green, (0, 0), FINE_SIGMA)
    framed = cv2.copyMakeBorder(field, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=12)[1:-1, 1:-1] > 0
    inner = inner if inner.any() else field > 0
    return {
        "brightness": float(inside.mean()),
        "contrast": float(inside.std()),
        "dark_share": float((inside < DARK_LEVEL).mean()),
        "white_share": float((inside > WHITE_LEVEL).mean()),
        "sharpness": float(100 * fine[inner].std() / max(1.0, float(green[inner].mean()))),
    }


def perceptual_hash(crop: np.ndarray) -> str:
    """64-bit DCT hash of the grey crop (imagehash.phash), 16 hexadecimal digits."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(crop)))
