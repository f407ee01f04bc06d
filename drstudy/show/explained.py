"""Pictures of one explained photograph: as the network saw it, with the map over it, and with the regions of the map outlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np

from drstudy.explain.measures.grid import ANY
from drstudy.explain.measures.outlines import Outline
from drstudy.show import heatmaps, outlines, style

SIDE = 512
"""Smallest side of a picture, pixels: the crop is enlarged by a whole number to reach it."""

STEPS = 12
"""Colours of the bar beside a map."""


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The crop (S, S, 3) uint8, enlarged by the smallest whole number k with kS >= ``side``."""
    factor = max(1, -(-side // len(image)))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def with_map(image: np.ndarray, heat: np.ndarray, highest: float, side: int = SIDE) -> np.ndarray:
    """The photograph in grey with the map over it.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S), at least 0.
        highest: Value that is drawn as the hottest colour.
        side: As in :func:`enlarged`.

    Returns:
        (kS, kS, 3) uint8 RGB.
    """
    large = enlarged(image, side)
    hot = cv2.resize(np.asarray(heat, np.float32), large.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.rint(255 * heatmaps.overlay(large, hot, highest)).astype(np.uint8)


def with_outlines(image: np.ndarray, found: Sequence[Outline], side: int = SIDE) -> np.ndarray:
    """The photograph with outlines, without names: a region of a map of all lesions has none.

    Args:
        image: (S, S, 3) uint8 RGB.
        found: Outlines in pixels of ``image``.
        side: As in :func:`enlarged`.

    Returns:
        (kS, kS, 3) uint8 RGB.
    """
    drawn = enlarged(image, side)
    factor = len(drawn) // len(image)
    for outline in found:
        lines = [np.rint(16 * (ring * factor - 0.5)).astype(np.int32) for ring in outline.rings]
        for thick, tone in ((5, (0, 0, 0)), (2, outlines.rgb(ANY))):
            cv2.polylines(drawn, lines, True, tone, thick, cv2.LINE_AA, shift=4)
    return drawn


def encoded(picture: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of a picture (h, w, 3) uint8 RGB: ``JPEG`` at quality 90, or ``PNG``."""
    from PIL import Image

    stream = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 4}
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def address(picture: np.ndarray) -> str:
    """A picture as a ``data:`` address, so that a page needs no other file."""
    return "data:image/jpeg;base64," + base64.b64encode(encoded(picture)).decode()


def heat_colours() -> list[str]:
    """Colours of the map from 0 to the highest value, as ``#rrggbb``."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(mpl.colormaps[style.HEAT_MAP](step / (STEPS - 1))) for step in range(STEPS)]
