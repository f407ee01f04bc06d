"""What draws on the pixel grid: outlines and strands by supersampling, smooth noise, layers of colour."""

from __future__ import annotations

import cv2
import numpy as np

from .anatomy import Eye
from .lesions import Lesion

MASK_COVERAGE = 0.5
"""A pixel belongs to the mask of a sharp structure (MA, HE, EX, VB, PRH, LASER, DRUSEN, VESSEL, DISC, FOVEA,
FOV) when the structure covers at least this share of it; the pixel at the centre of a lesion always
belongs to it."""

SOFT_OPACITY = 0.35
"""A pixel belongs to the mask of SE when the spot's relative opacity is at least this; NV and IRMA masks are
the patch that holds their strands (the strands widened by ``NET_REACH``), which is also what is
painted reddish."""

NET_REACH = 0.045
"""Half width, in DD, by which strands of NV and IRMA are widened to the patch that makes up their mask."""

BLOOD_ARTERY = np.array([0.27, 0.85, 0.72], np.float32)
BLOOD = np.array([0.42, 1.05, 0.85], np.float32)
CHOROID = np.array([0.50, 0.80, 0.55], np.float32)
MELANIN = np.array([0.42, 0.85, 1.10], np.float32)


class Painter:
    """Draws outlines and strands given in DD onto the pixel grid, by supersampling."""

    def __init__(self, size: int, half: float):
        self.size, self.half = size, half
        self.ss = 4 if size <= 288 else 3 if size <= 512 else 2
        self.scale = size / (2 * half)  # pixels a DD

    def canvas(self) -> np.ndarray:
        """Returns an empty fine canvas, uint8."""
        return np.zeros((self.size * self.ss, self.size * self.ss), np.uint8)

    def fixed(self, points: np.ndarray) -> np.ndarray:
        """DD to fixed-point canvas coordinates (4 fractional bits)."""
        at = (points + self.half) * (self.scale * self.ss) - 0.5
        return np.round(at * 16).astype(np.int32)

    def fill(self, canvas: np.ndarray, outline: np.ndarray, value: int = 255) -> None:
        """Fills an outline (n, 2)."""
        cv2.fillPoly(canvas, [self.fixed(outline)], value, cv2.LINE_8, 4)

    def stroke(self, canvas: np.ndarray, curve: np.ndarray, width: float, value: int = 255) -> None:
        """Draws an open curve of ``width`` DD; below one fine pixel it fades instead."""
        wide = width * self.scale * self.ss
        cv2.polylines(
            canvas,
            [self.fixed(curve)],
            False,
            int(value * min(1.0, max(wide, 0.25))),
            max(1, round(wide)),
            cv2.LINE_8,
            4,
        )

    def down(self, canvas: np.ndarray) -> np.ndarray:
        """Averages a fine canvas to coverage 0 to 1, float32 (size, size)."""
        return cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(
            np.float32
        ) * np.float32(1 / 255)

    def pixel(self, x: float, y: float) -> tuple[int, int]:
        """Returns row and column of the pixel that holds a point (DD)."""
        at = [min(self.size - 1, max(0, int((v + self.half) * self.scale))) for v in (y, x)]
        return at[0], at[1]


def noise(rng: np.random.Generator, cells: int, size: int, cubic: bool = True) -> np.ndarray:
    """Smooth standard-normal noise with ``cells`` lattice points a side, resized to ``size``."""
    lattice = rng.standard_normal((cells, cells), dtype=np.float32)
    if cells > size:
        return cv2.resize(lattice, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)


def covered(
    painter: Painter, lesions: list[Lesion], valued: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws filled lesions: opacity (float32), mask (bool), coverage (float32)."""
    cover, level = painter.canvas(), painter.canvas()
    for one in lesions:
        for outline in one.blobs:
            painter.fill(cover, outline)
            painter.fill(level, outline, round(255 * one.strength))
    full = painter.down(cover)
    return painter.down(level), mask_of(painter, full, lesions, MASK_COVERAGE), full


def mask_of(painter: Painter, cover: np.ndarray, lesions: list[Lesion], threshold: float) -> np.ndarray:
    mask = cover >= threshold
    for one in lesions:  # parts smaller than a pixel or two own the pixel that they darken or brighten most
        for outline in one.blobs:
            if float(np.ptp(outline, axis=0).max()) * painter.scale < 2.0:
                mask[painter.pixel(*outline.mean(0))] = True
    return mask


def net(painter: Painter, lesions: list[Lesion]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws nets of strands: opacity of the strands, soft patch, mask of the patch."""
    level, patch = painter.canvas(), painter.canvas()
    for one in lesions:
        for curve, width in one.strands:
            painter.stroke(level, curve, width, round(255 * one.strength))
            painter.stroke(patch, curve, width + 2 * NET_REACH)
    cover = painter.down(patch)
    mask = cover >= MASK_COVERAGE
    for one in lesions:  # nets below a pixel: the pixel in the middle of the first strand
        curve = one.strands[0][0]
        mask[painter.pixel(*curve[len(curve) // 2])] = True
    return painter.down(level), cover, mask


def tessellation(rng: np.random.Generator, eye: Eye, size: int) -> np.ndarray:
    """Choroidal vessels seen through a thin pigment layer: a net of bright bands, -0.5 to 1, float32 (size,
    size)."""
    axis = (
        (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 * eye.half / size) - np.float32(eye.half)
    ).astype(np.float32)
    x = np.broadcast_to(axis[None, :], (size, size)).astype(np.float32)
    y = np.broadcast_to(axis[:, None], (size, size)).astype(np.float32)
    wx, wy = 0.16 * noise(rng, 14, size), 0.16 * noise(rng, 14, size)
    centre = 0.7 * eye.disc + 0.3 * eye.fovea
    dx, dy = x - np.float32(centre[0]) + wx, y - np.float32(centre[1]) + wy
    angle, away = cv2.cartToPolar(dx, dy)[::-1]
    lattice = rng.standard_normal((64, 64), dtype=np.float32)
    lattice = cv2.GaussianBlur(np.tile(lattice, (2, 2)), (0, 0), 0.8)[:64, :64]
    lattice /= lattice.std()
    u = angle * np.float32(64 / (2 * np.pi))
    v = np.sqrt(away + 0.05) * np.float32(7.0)
    first = cv2.remap(lattice, (u + 0.9 * v) % 64, v % 64, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
    second = cv2.remap(
        lattice,
        (64 - u + 0.8 * v + 11) % 64,
        (v * 1.15 + 23) % 64,
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_WRAP,
    )
    ridge = np.exp(-(first**2) / 0.22) + 0.7 * np.exp(-(second**2) / 0.16)
    return np.minimum(ridge, 1.2) - np.float32(0.6)


def grid(size: int, half: float) -> tuple[np.ndarray, np.ndarray]:
    axis = (
        (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 * half / size) - np.float32(half)
    ).astype(np.float32)
    return axis[None, :], axis[:, None]


def blend(image: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Blends a colour (3,) into the image in place with opacity ``alpha`` (size, size)."""
    for c in range(3):
        channel = image[..., c]
        channel += alpha * (np.float32(colour[c]) - channel)
